# SPDX-License-Identifier: Apache-2.0
"""Numbers and names -> the checked configuration of a training run.

    [model]      what is trained             [loss]       what it is trained towards
    [data]       what it sees                [schedule]   how long, and how the learning rate moves
                                             [run]        where and how it computes, what is measured when

A recipe (`recipes/`) states what differs from the defaults here; `run.json` of a run folder holds everything.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from latentwire_core.errors import CodecError
from latentwire_train.loss_weights import LossWeights

MAX_SEED = 2**63 - 1


class ConfigError(CodecError):
    """A recipe or an override cannot be used."""


class Architecture(StrEnum):
    """The network: our spatial one, diffusers' spatial one, or a latent vector."""

    LATENT_VAE = "latent-vae"
    AUTOENCODER_KL = "autoencoder-kl"
    VECTOR = "vector"


class AutoencoderKind(StrEnum):
    """A variational autoencoder, or the plain one to compare it with: no noise, no KL."""

    VAE = "vae"
    AE = "ae"


class FramingName(StrEnum):
    """What of an image is seen: random squares of it, or the whole of it, scaled."""

    CROP = "crop"
    COVER = "cover"


class Layout(StrEnum):
    """How the data lies in its folder; `auto` looks."""

    AUTO = "auto"
    FOLDER = "folder"
    CELEBA = "celeba"
    IDX = "idx"


class OptimizerName(StrEnum):
    """What makes the steps, see `optimizers.py`."""

    ADAMW = "adamw"
    MUON = "muon"


class Precision(StrEnum):
    """What the network computes in (losses, weights and optimizer are float32 always), or how its weights are saved."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def _check(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if not low <= value <= high:
        section = type(config).__name__.removesuffix("Config").lower()
        raise ConfigError(f"{section}.{name} is {value}; it must be {low} to {high}")


@dataclass(frozen=True)
class ModelConfig:
    """What is trained.

    Attributes:
        family: the network.
        kind: with a posterior, or plain.
        init: what to start from, anything that `latentwire serve --model` takes; empty: from random weights.
        latent_space: the name of the new latent space, written into config.json; empty: unnamed.
        options: of the family's network, such as `widths`; see its class.
    """

    family: Architecture = Architecture.LATENT_VAE
    kind: AutoencoderKind = AutoencoderKind.VAE
    init: str = ""
    latent_space: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """What the network sees.

    Attributes:
        layout: of the folder.
        framing: squares cut from the images, or whole images scaled to the size.
        size: side of what the network sees, pixels.
        scaled_share: of the crops come from a larger square, scaled down.
        max_scale: how many times larger that square is at most.
        mirror_share: of the samples are mirrored, left to right.
        held_out_share: of the images are never trained on; `best` is chosen by them.
        held_out_images: how many of these are measured, at most.
        cache_mib: memory for decoded images, MiB.
        workers: processes that prepare samples; 0: the training process does it.
        max_bad_share: of the images that may turn out damaged before the run ends.
    """

    layout: Layout = Layout.AUTO
    framing: FramingName = FramingName.CROP
    size: int = 128
    scaled_share: float = 0.25
    max_scale: float = 2.0
    mirror_share: float = 0.5
    held_out_share: float = 0.02
    held_out_images: int = 64
    cache_mib: int = 2048
    workers: int = 0
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check(self, "size", 8, 4096)
        _check(self, "held_out_images", 1, 10**6)
        _check(self, "cache_mib", 0, 2**30)
        _check(self, "workers", 0, 1024)
        _check(self, "max_scale", 1, 64)
        for name in ("scaled_share", "mirror_share", "max_bad_share"):
            _check(self, name, 0, 1)
        if not 0 < self.held_out_share < 1:
            raise ConfigError(f"data.held_out_share is {self.held_out_share}; it must lie between 0 and 1")


@dataclass(frozen=True)
class LossConfig:
    """What the network is trained towards.

    Attributes:
        weights: of each term, see `LossWeights`; `kl` multiplies nats per value of the image (3HW of them).
        kl_warmup_steps: the KL's weight rises to its value over so many steps, from 0.
        quantization_step: width of the uniform noise added to whitened latents, standard deviations; 0: none.
        lpips: folder with LPIPS's weights; needed where its weight is not 0.
        adversarial_from: the step at which the discriminator begins.
        discriminator_width: channels of its first layer.
    """

    weights: LossWeights = field(default_factory=lambda: LossWeights(l1=1.0, kl=1e-6))
    kl_warmup_steps: int = 0
    quantization_step: float = 0.0
    lpips: str = ""
    adversarial_from: int = 0
    discriminator_width: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check(self, "kl_warmup_steps", 0, 10**9)
        _check(self, "quantization_step", 0, 100)
        _check(self, "adversarial_from", 0, 10**9)
        _check(self, "discriminator_width", 1, 4096)
        if self.weights.lpips and not self.lpips:
            raise ConfigError("loss.weights.lpips is not 0; say where its weights lie with loss.lpips = 'FOLDER'")

    @property
    def adversarial(self) -> bool:
        """Whether there is a discriminator."""
        return bool(self.weights.adversarial or self.weights.feature_matching)


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and how fast.

    Attributes:
        steps: the budget in steps; 0: the budget is `minutes`.
        minutes: the budget in minutes of training, over all interruptions; 0: the budget is `steps`.
        batch_size: samples of a step, over all processes.
        optimizer: AdamW, or Muon for matrices and AdamW for the rest.
        learning_rate: at its highest.
        warmup_steps: over which it rises from 0.
        final_share: of it is left at the end of the cosine.
        betas: AdamW's.
        weight_decay: decoupled.
        clip_norm: largest norm of a step's gradient.
        ema_decay: of the averaged weights, which are what is measured and saved.
        seed: of weights, samples and noise.
    """

    steps: int = 10_000
    minutes: float = 0.0
    batch_size: int = 16
    optimizer: OptimizerName = OptimizerName.ADAMW
    learning_rate: float = 5e-4
    warmup_steps: int = 100
    final_share: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check(self, "steps", 0, 10**9)
        _check(self, "minutes", 0, 10**6)
        if bool(self.steps) == bool(self.minutes):
            raise ConfigError(
                f"schedule.steps is {self.steps} and schedule.minutes {self.minutes}; one of them must be 0, the other "
                "is the budget"
            )
        _check(self, "batch_size", 1, 10**6)
        _check(self, "warmup_steps", 0, 10**9)
        _check(self, "seed", 0, MAX_SEED)
        if not (self.learning_rate > 0 and self.clip_norm > 0):
            raise ConfigError(
                f"schedule.learning_rate is {self.learning_rate} and clip_norm {self.clip_norm}; both must be above 0"
            )
        for name in ("final_share", "weight_decay"):
            _check(self, name, 0, 1)
        if not all(0 <= number < 1 for number in (*self.betas, self.ema_decay)):
            raise ConfigError(f"schedule.betas are {self.betas}, ema_decay {self.ema_decay}; each must be in [0, 1)")

    def learning_rate_at(self, step: int, progress: float) -> float:
        """Map a step, from 0, and the part of the budget that is used, 0..1, to the learning rate: warm-up, cosine."""
        warmth = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.learning_rate * warmth * (self.final_share + (1 - self.final_share) * cosine)


@dataclass(frozen=True)
class RunConfig:
    """Where and how it computes, and what is measured when.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` ...; several processes (`accelerate launch`) choose their own.
        precision: of the network's forward and backward pass.
        saved_precision: of the weights in `best` and `last`.
        channels_last: whether tensors lie channels last; what is faster depends on device and precision.
        compile: whether torch.compile makes the network faster; its gradients are compared with eager ones first.
        log_every: steps between two rows of the log.
        evaluate_every: steps between two measurements on held-out images, and two pictures.
        save_every: steps between two checkpoints.
    """

    device: str = "auto"
    precision: Precision = Precision.FLOAT32
    saved_precision: Precision = Precision.FLOAT32
    channels_last: bool = False
    compile: bool = False
    log_every: int = 10
    evaluate_every: int = 500
    save_every: int = 100

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("log_every", "evaluate_every", "save_every"):
            _check(self, name, 1, 10**9)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a run does, but for where its data lies."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()

    def as_dict(self) -> dict[str, Any]:
        """Return tables of plain values, which JSON and TOML can hold."""
        return dataclasses.asdict(self)
