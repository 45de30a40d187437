# SPDX-License-Identifier: Apache-2.0
"""Numbers and names -> the checked configuration of a training run.

    [model]      the network                 [loss]       the terms of the loss
    [data]       the samples                 [schedule]   the budget, the learning rate
                                             [run]        the device, when to measure and save

A recipe (`recipes/`) states the values that differ from the defaults here; `run.json` of a run folder holds all values.
"""

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from latentwire_core.errors import CodecError

MAX_SEED = 2**63 - 1
STRICT = ConfigDict(strict=True, extra="forbid")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Interval = Annotated[int, Field(ge=1, le=10**9)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ConfigError(CodecError):
    """A recipe or an override cannot be used."""


class Architecture(StrEnum):
    """The network: our spatial one, diffusers' spatial one, or one with a latent vector."""

    LATENT_VAE = "latent-vae"
    AUTOENCODER_KL = "autoencoder-kl"
    VECTOR = "vector"


class AutoencoderKind(StrEnum):
    """A variational autoencoder, or a plain one to compare it with: no noise, no KL."""

    VAE = "vae"
    AE = "ae"


class FramingName(StrEnum):
    """Random squares of an image, or the whole image, scaled."""

    CROP = "crop"
    COVER = "cover"


class LayoutName(StrEnum):
    """How the data lies in its folder (`data/source.py`); `auto` looks."""

    AUTO = "auto"
    FOLDER = "folder"
    CELEBA = "celeba"
    IDX = "idx"


class OptimizerName(StrEnum):
    """The optimizer of the network's weights (`optimizers.py`)."""

    ADAMW = "adamw"
    MUON = "muon"


class Precision(StrEnum):
    """The dtype of the network's passes, or of its saved weights; all else in training is always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The network."""

    family: Architecture = Architecture.LATENT_VAE
    kind: AutoencoderKind = AutoencoderKind.VAE  # with a posterior, or plain
    init: str = ""  # the weights to start from, any source that `latentwire serve --model` takes; empty: random weights
    latent_space: str = ""  # the name of the new latent space, written into config.json; empty: unnamed
    # Options of the architecture's class, such as `widths`.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """The samples."""

    layout: LayoutName = LayoutName.AUTO
    framing: FramingName = FramingName.CROP  # squares cut from the images, or whole images scaled to the size
    size: Annotated[int, Field(ge=8, le=4096)] = 128  # side of a sample, pixels
    scaled_share: Share = 0.25  # share of the crops that come from a larger square, scaled down
    max_scale: Annotated[float, Field(ge=1, le=64)] = 2.0  # the largest ratio of that square's side to `size`
    mirror_share: Share = 0.5  # share of the samples that are mirrored, left to right
    # Share of the images that are never trained on; `best` is chosen by them.
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.02
    held_out_images: Annotated[int, Field(ge=1, le=10**6)] = 64  # the most held-out images that are measured
    cache_mib: Annotated[int, Field(ge=0, le=2**30)] = 2048  # memory for decoded images, MiB
    # Number of processes that prepare samples; 0: the training process does it.
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    max_bad_share: Share = 0.01  # share of the images that may turn out damaged before the run ends


@dataclass(frozen=True, config=STRICT)
class LossWeights:
    """The factor of each term of the loss; a term with factor 0 is not computed."""

    # The reconstruction terms of `loss/images.py`.
    l1: Weight = 0.0
    mse: Weight = 0.0
    charbonnier: Weight = 0.0
    ms_ssim: Weight = 0.0
    laplacian: Weight = 0.0
    wavelet: Weight = 0.0
    lpips: Weight = 0.0  # `Lpips`, which needs weights on disk
    kl: Weight = 0.0  # the KL divergence in nats per value of the image (3HW values)
    # The bits of the `.lat` coder per value of the image, in squared steps: lambda. At high rates it is ln 2 / 6.
    rate: Weight = 0.0
    # The terms of the discriminator, from `adversarial_from` on.
    adversarial: Weight = 0.0
    feature_matching: Weight = 0.0


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """The terms of the loss."""

    weights: LossWeights = LossWeights(l1=1.0, kl=1e-6)
    kl_warmup_steps: Count = 0  # number of steps over which the KL's factor rises from 0
    # Width of the uniform noise that is added to whitened latents, standard deviations; 0: no noise.
    quantization_step: Annotated[float, Field(ge=0, le=100)] = 0.0
    # The finest and the coarsest step of the coder, raw latents: with a factor for the rate, each sample has its own.
    steps: tuple[float, float] = (0.13, 2.0)
    lpips: str = ""  # folder with LPIPS's weights; needed where its factor is not 0
    adversarial_from: Count = 0  # the step at which the discriminator begins
    discriminator_width: Annotated[int, Field(ge=1, le=4096)] = 64  # channels of the discriminator's first layer

    def __post_init__(self) -> None:
        """Check the values that depend on each other."""
        if self.weights.lpips and not self.lpips:
            raise ConfigError("loss.weights.lpips is not 0; say where its weights lie with loss.lpips = 'FOLDER'")
        if not 0 < self.steps[0] <= self.steps[1] < math.inf:
            raise ConfigError(f"loss.steps are {self.steps}; the finest, above 0, comes first, then the coarsest")
        if self.weights.rate:
            if not self.weights.mse:
                raise ConfigError("loss.weights.rate is not 0, and loss.weights.mse is; bits are weighed against it")
            for name in ("l1", "charbonnier", "laplacian", "wavelet", "lpips", "kl"):
                if getattr(self.weights, name):
                    raise ConfigError(
                        f"loss.weights.{name} is {getattr(self.weights, name):g}; beside the rate there are mse, "
                        "ms_ssim and the adversarial terms: set it to 0"
                    )
            if self.quantization_step:
                raise ConfigError(
                    f"loss.quantization_step is {self.quantization_step:g}; the rate brings the coder's own integers: "
                    "set it to 0"
                )

    @property
    def adversarial(self) -> bool:
        """Whether there is a discriminator."""
        return bool(self.weights.adversarial or self.weights.feature_matching)


@dataclass(frozen=True, config=STRICT)
class ScheduleConfig:
    """The budget, and the optimizer over time."""

    steps: Count = 10_000  # the budget in steps; 0: the budget is `minutes`
    # The budget in minutes of training, over all interruptions; 0: the budget is `steps`.
    minutes: Annotated[float, Field(ge=0, le=10**6)] = 0.0
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 16  # number of samples of a step, over all processes
    optimizer: OptimizerName = OptimizerName.ADAMW  # AdamW, or Muon for matrices and AdamW for the other weights
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4  # the highest learning rate
    warmup_steps: Count = 100  # number of steps over which the learning rate rises from 0
    final_share: Share = 0.02  # share of the learning rate that is left at the end of the cosine
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Share = 0.0  # decoupled
    clip_norm: Annotated[float, Field(gt=0)] = 1.0  # largest norm of a step's gradient
    # Decay of the averaged weights, which are the ones that are measured and saved.
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0  # seed of weights, samples and noise

    def __post_init__(self) -> None:
        """Check the values that depend on each other."""
        if bool(self.steps) == bool(self.minutes):
            budget = f"schedule.steps is {self.steps} and schedule.minutes {self.minutes}"
            raise ConfigError(f"{budget}; one of them must be 0, the other is the budget")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"schedule.betas are {self.betas}; each must be in [0, 1)")

    def learning_rate_at(self, step: int, progress: float) -> float:
        """Map a step, from 0, and the used part of the budget, 0..1, to the learning rate: warm-up, cosine."""
        warmth = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.learning_rate * warmth * (self.final_share + (1 - self.final_share) * cosine)


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """Where and how the run computes, and when it measures and saves."""

    # `auto`, `cpu`, `cuda`, `cuda:1` ...; several processes (`accelerate launch`) choose their own.
    device: str = "auto"
    precision: Precision = Precision.FLOAT32  # dtype of the network's forward and backward pass
    saved_precision: Precision = Precision.FLOAT32  # dtype of the weights in `best` and `last`
    channels_last: bool = False  # whether tensors lie channels last; the faster layout depends on device and precision
    # Whether torch.compile makes the network faster; its gradients are compared with eager ones first.
    compile: bool = False
    log_every: Interval = 10  # steps between two rows of the log
    evaluate_every: Interval = 500  # steps between two measurements on held-out images, and two pictures
    save_every: Interval = 100  # steps between two checkpoints


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """All values that decide the course of a run, apart from the place of its data."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        """Check the values of tables that depend on each other."""
        if self.loss.weights.rate and (
            self.model.kind is not AutoencoderKind.AE or self.model.family is Architecture.VECTOR
        ):
            raise ConfigError(
                f"loss.weights.rate is for spatial latents that are rounded, not sampled; model.kind is "
                f"{self.model.kind} and model.family {self.model.family}: take kind = 'ae' and a spatial family"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return tables of plain values, which JSON and TOML can hold."""
        return dataclasses.asdict(self)
