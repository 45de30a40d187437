# SPDX-License-Identifier: Apache-2.0
"""The facts of a training run -> the model card beside its weights: Markdown with a YAML head."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from latentwire_train.config import Architecture, AutoencoderKind, FramingName, TrainingConfig
from latentwire_train.record.export import LatentMoments

# The last part of a figure's name -> its name on the card, and the number of digits after the point.
FIGURES = {
    "psnr": ("PSNR, dB", 2),
    "psnr_fine": ("PSNR at a fine step of the coder, dB", 2),
    "bpp_fine": ("rate at the fine step, bits per pixel", 3),
    "psnr_middle": ("PSNR at a middle step, dB", 2),
    "bpp_middle": ("rate at the middle step, bits per pixel", 3),
    "psnr_coarse": ("PSNR at a coarse step, dB", 2),
    "bpp_coarse": ("rate at the coarse step, bits per pixel", 3),
    "psnr_rounded": ("PSNR with latents rounded to the step of the noise in training, dB", 2),
    "ssim": ("SSIM", 3),
    "ms_ssim": ("MS-SSIM", 3),
    "lpips": ("LPIPS", 3),
    "kl": ("KL divergence to N(0, I), nats per image", 1),
    "loss": ("loss, weighted total", 5),
}


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card."""

    config: TrainingConfig
    steps: int  # number of steps that these weights have seen
    minutes: float  # time of training up to these weights
    images: int  # number of images to train on
    held_out: int  # number of images to measure on
    skipped: int  # number of files that could not be used
    data_name: str  # the folder's
    data_digest: str  # SHA-256 of the data's manifest, in hex
    parameters: int  # number of the network's parameters
    latent_shape: tuple[int, ...]  # (C,h,w) for an image of `config.data.size`; (d,1,1) for a vector
    latents: LatentMoments  # the moments of raw latents of training images
    figures: Mapping[str, float]  # measurements on the held-out images, by names such as `held_out/psnr`
    versions: Mapping[str, str]  # name -> version of the software


CARD = """\
---
library_name: {library}
tags:
- latentwire
- {tag}
- {family}
# license: add yours
---

# {name}: a {kind} for images

{shape}. Architecture `{family}`, {parameters:,} parameters. {space}

## How to use it

```sh
latentwire serve --model PATH   # the folder that this file lies in
```{loading}

## Measured

{measured}

## How it was trained

{training}

## Latents

Raw latents of training images, per channel. `scaling_factor` in `config.json` is 1 / the standard deviation of all \
latents: {scaling_factor:.6g}.

{latents}

## Limits

{limits}
"""
LOADING = """

Or in diffusers, as it is:

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("PATH")
scaled = vae.encode(images).latent_dist.sample() * vae.config.scaling_factor
```"""


def model_card(facts: CardFacts) -> str:
    """Map facts to the text of a README.md as model hubs read it; the licence is left for the user to add."""
    model, size = facts.config.model, facts.config.data.size
    channels, height, width = facts.latent_shape
    shape = f"RGB images of {size}x{size} px <-> a latent vector of {channels} numbers"
    if model.family is not Architecture.VECTOR:
        shape = (
            f"RGB images <-> latents with f = {size // height} and C = {channels}, so {size}x{size}x3 becomes "
            f"{width}x{height}x{channels}"
        )
    # Only one architecture is diffusers' own and diffusers' own class loads without latentwire.
    diffusers, plain = model.family is Architecture.AUTOENCODER_KL, model.kind is AutoencoderKind.AE
    return CARD.format(
        library="diffusers" if diffusers else "latentwire",
        tag="autoencoder" if plain else "vae",
        family=model.family,
        name=model.latent_space or model.family,
        kind="plain autoencoder" if plain else "variational autoencoder",
        shape=shape,
        parameters=facts.parameters,
        space=f"Latent space `{model.latent_space}`." if model.latent_space else "Its latent space has no name.",
        loading=LOADING if diffusers else "",
        measured=_measured(facts),
        training=_table(("", ""), _training(facts)),
        scaling_factor=facts.latents.scaling_factor,
        latents=_latents(facts.latents),
        limits="\n".join(f"- {limit}" for limit in _limits(facts.config)),
    )


def _measured(facts: CardFacts) -> str:
    if not facts.figures:
        return "Nothing was measured."
    data = facts.config.data
    framing = "scaled and cut to" if data.framing is FramingName.COVER else "cut from the centre to"
    rows = []
    for name, value in facts.figures.items():
        label, digits = FIGURES.get(name.rpartition("/")[2], (name.rpartition("/")[2], None))
        rows.append((label, f"{value:.4g}" if digits is None else f"{value:,.{digits}f}"))
    return (
        f"Means over {facts.held_out:,} images that were held out from training, {framing} {data.size}x{data.size} px: "
        "the posterior's mean, decoded with the weights that lie here (averaged over steps) and rounded to 8 bits.\n\n"
        + _table(("figure", "value"), rows)
    )


def _training(facts: CardFacts) -> list[tuple[str, str]]:
    config = facts.config
    schedule, data, loss = config.schedule, config.data, config.loss
    budget = f"{schedule.steps:,} steps" if schedule.steps else f"{schedule.minutes:g} minutes"
    samples = f"whole images, scaled and cut to {data.size}x{data.size} px"
    if data.framing is FramingName.CROP:
        scaled = f"{data.scaled_share:.0%} of them from up to {data.max_scale:g} times that"
        samples = f"random crops of {data.size}x{data.size} px, {scaled}"
    plain = config.model.kind is AutoencoderKind.AE
    terms = {name: weight for name, weight in asdict(loss.weights).items() if weight and not (plain and name == "kl")}
    kl = "; kl in nats per value of the image" if "kl" in terms else ""
    if kl and loss.kl_warmup_steps:
        kl += f", its weight rising over {loss.kl_warmup_steps:,} steps"
    noise = f"{loss.quantization_step:g} standard deviations wide" if loss.quantization_step else "not used"
    if loss.weights.rate:
        noise = f"the coder's own integers, steps {loss.steps[0]:g} to {loss.steps[1]:g}"
    optimizer = (
        f"{schedule.optimizer}, learning rate {schedule.learning_rate:g}, {schedule.warmup_steps:,} steps of warm-up, "
        f"cosine to {schedule.final_share:.0%}, gradient norm <= {schedule.clip_norm:g}, EMA {schedule.ema_decay:g}"
    )
    return [
        ("data", f"{_code(facts.data_name)}: {facts.images:,} images, {facts.held_out:,} more held out"),
        ("data digest", f"{_code(facts.data_digest)} (SHA-256 of the manifest)"),
        ("skipped files", f"{facts.skipped:,}"),
        ("samples", f"{samples}; {data.mirror_share:.0%} mirrored"),
        ("budget", f"{budget}; these weights: {facts.steps:,} steps, {facts.minutes:.1f} minutes"),
        ("batch", f"{schedule.batch_size} samples"),
        ("started from", _code(config.model.init) if config.model.init else "random weights"),
        ("loss", " + ".join(f"{weight:g} {name}" for name, weight in terms.items()) + kl),
        ("quantization", noise),
        ("optimizer", optimizer),
        ("precision", f"{config.run.precision}"),
        ("seed", f"{schedule.seed}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts.versions.items())),
    ]


def _latents(latents: LatentMoments) -> str:
    """Map the moments to a table; the moments of a long vector to their range, since no one reads 128 rows."""
    moments = list(zip(latents.mean, latents.std, strict=True))
    if len(moments) <= 32:
        rows = [(str(index), f"{mean:.4f}", f"{std:.4f}") for index, (mean, std) in enumerate(moments)]
        return _table(("channel", "mean", "standard deviation"), rows)
    ranges = {"mean": latents.mean, "standard deviation": latents.std}
    rows = [(name, f"{min(numbers):.4f}", f"{max(numbers):.4f}") for name, numbers in ranges.items()]
    return _table((f"of {len(moments)} channels", "smallest", "largest"), rows)


def _limits(config: TrainingConfig) -> list[str]:
    limits = ["It has seen the data above and nothing else; what looks different may come out badly."]
    weights = config.loss.weights
    if not (weights.lpips or config.loss.adversarial):
        limits.append("Trained without a perceptual or adversarial loss: fine texture comes out soft.")
    if config.model.kind is AutoencoderKind.AE:
        limits.append("A plain autoencoder: nothing asks its latents to follow N(0, I), and random ones mean nothing.")
    elif config.model.family is not Architecture.VECTOR:
        limits.append("Spatial latents: decoding N(0, I) gives texture, not pictures.")
    if config.model.family is Architecture.VECTOR:
        limits.append(f"It takes images of {config.data.size}x{config.data.size} px only.")
    return limits


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _code(text: str) -> str:
    """Map a name from outside to code, so that it contains no markup."""
    readable = text.encode(errors="replace").decode()
    return f"`{' '.join(readable.split()).replace('`', chr(39))}`"
