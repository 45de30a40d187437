# SPDX-License-Identifier: Apache-2.0
"""The facts of a training run -> the model card beside its weights: Markdown with a YAML head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentwire_train.config import Architecture, AutoencoderKind, FramingName, TrainingConfig
from latentwire_train.record.export import LatentMoments

# The last part of a figure's name -> its name on the card, and the number of digits after the point.
FIGURES = {
    "psnr": ("PSNR, dB", 2),
    "psnr_rounded": ("PSNR with latents rounded to the step of the noise in training, dB", 2),
    "ssim": ("SSIM", 3),
    "ms_ssim": ("MS-SSIM", 3),
    "lpips": ("LPIPS", 3),
    "kl": ("KL divergence to N(0, I), nats per image", 1),
    "loss": ("loss, weighted total", 5),
}


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card.

    Attributes:
        config: the configuration of the run.
        steps: number of steps that these weights have seen.
        minutes: time of training up to these weights.
        images: number of images to train on.
        held_out: number of images to measure on.
        skipped: number of files that could not be used.
        data_name: name of the data's folder.
        data_digest: SHA-256 of the data's manifest, in hex.
        parameters: number of the network's parameters.
        latent_shape: (C,h,w) for an image of `config.data.size`; (d,1,1) for a vector.
        latents: the moments of raw latents of training images.
        figures: measurements on the held-out images, by names such as `held_out/psnr`.
        versions: name -> version of the software.
    """

    config: TrainingConfig
    steps: int
    minutes: float
    images: int
    held_out: int
    skipped: int
    data_name: str
    data_digest: str
    parameters: int
    latent_shape: tuple[int, ...]
    latents: LatentMoments
    figures: Mapping[str, float]
    versions: Mapping[str, str]


def model_card(facts: CardFacts) -> str:
    """Map facts to the text of a README.md as model hubs read it; the licence is left for the user to add."""
    parts = [
        _head(facts.config),
        f"# {_title(facts.config)}",
        _summary(facts),
        "## How to use it",
        _usage(facts.config.model.family),
        "## Measured",
        _measured(facts),
        "## How it was trained",
        _table(("", ""), _training(facts)),
        "## Latents",
        "Raw latents of training images, per channel. `scaling_factor` in `config.json` is 1 / the standard deviation "
        f"of all latents: {facts.latents.scaling_factor:.6g}.",
        _latents(facts.latents),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(facts.config)),
    ]
    return "\n\n".join(parts) + "\n"


def _head(config: TrainingConfig) -> str:
    # Only one architecture is diffusers' own and diffusers' own class loads without latentwire.
    library = "diffusers" if config.model.family is Architecture.AUTOENCODER_KL else "latentwire"
    tags = (
        "latentwire",
        "vae" if config.model.kind is AutoencoderKind.VAE else "autoencoder",
        config.model.family.value,
    )
    return "\n".join(
        ("---", f"library_name: {library}", "tags:", *(f"- {tag}" for tag in tags), "# license: add yours", "---")
    )


def _title(config: TrainingConfig) -> str:
    kind = "variational autoencoder" if config.model.kind is AutoencoderKind.VAE else "plain autoencoder"
    return f"{config.model.latent_space or config.model.family.value}: a {kind} for images"


def _summary(facts: CardFacts) -> str:
    config = facts.config
    channels, height, width = facts.latent_shape
    size = config.data.size
    if config.model.family is Architecture.VECTOR:
        shape = f"RGB images of {size}x{size} px <-> a latent vector of {channels} numbers"
    else:
        shape = (
            f"RGB images <-> latents with f = {size // height} and C = {channels}, so {size}x{size}x3 becomes "
            f"{width}x{height}x{channels}"
        )
    space = config.model.latent_space
    named = f"Latent space `{space}`." if space else "Its latent space has no name."
    return f"{shape}. Architecture `{config.model.family}`, {facts.parameters:,} parameters. {named}"


def _usage(family: Architecture) -> str:
    serving = "```sh\nlatentwire serve --model PATH   # the folder that this file lies in\n```"
    if family is not Architecture.AUTOENCODER_KL:
        return serving
    loading = (
        "```python\nfrom diffusers import AutoencoderKL\n\n"
        'vae = AutoencoderKL.from_pretrained("PATH")\n'
        "scaled = vae.encode(images).latent_dist.sample() * vae.config.scaling_factor\n```"
    )
    return f"{serving}\n\nOr in diffusers, as it is:\n\n{loading}"


def _measured(facts: CardFacts) -> str:
    size = f"{facts.config.data.size}x{facts.config.data.size} px"
    framing = "scaled and cut to" if facts.config.data.framing is FramingName.COVER else "cut from the centre to"
    introduction = (
        f"Means over {facts.held_out:,} images that were held out from training, {framing} {size}: the posterior's "
        "mean, decoded with the weights that lie here (averaged over steps) and rounded to 8 bits."
    )
    rows = []
    for name, value in facts.figures.items():
        label, digits = FIGURES.get(name.rpartition("/")[2], (name.rpartition("/")[2], None))
        rows.append((label, f"{value:.4g}" if digits is None else f"{value:,.{digits}f}"))
    return f"{introduction}\n\n{_table(('figure', 'value'), rows)}" if rows else "Nothing was measured."


def _training(facts: CardFacts) -> list[tuple[str, str]]:
    config = facts.config
    schedule, data, loss = config.schedule, config.data, config.loss
    budget = f"{schedule.steps:,} steps" if schedule.steps else f"{schedule.minutes:g} minutes"
    samples = f"{data.size}x{data.size} px"
    if data.framing is FramingName.CROP:
        samples = f"random crops of {samples}, {data.scaled_share:.0%} of them from up to {data.max_scale:g} times that"
    else:
        samples = f"whole images, scaled and cut to {samples}"
    terms = {name: weight for name, weight in config.as_dict()["loss"]["weights"].items() if weight}
    if config.model.kind is AutoencoderKind.AE:
        terms.pop("kl", None)
    kl = "; kl in nats per value of the image" if "kl" in terms else ""
    if kl and loss.kl_warmup_steps:
        kl += f", its weight rising over {loss.kl_warmup_steps:,} steps"
    noise = f"{loss.quantization_step:g} standard deviations wide" if loss.quantization_step else "not used"
    return [
        ("data", f"{_code(facts.data_name)}: {facts.images:,} images, {facts.held_out:,} more held out"),
        ("data digest", f"{_code(facts.data_digest)} (SHA-256 of the manifest)"),
        ("skipped files", f"{facts.skipped:,}"),
        ("samples", f"{samples}; {data.mirror_share:.0%} mirrored"),
        ("budget", f"{budget}; these weights: {facts.steps:,} steps, {facts.minutes:.1f} minutes"),
        ("batch", f"{schedule.batch_size} samples"),
        ("started from", _code(config.model.init) if config.model.init else "random weights"),
        ("loss", " + ".join(f"{weight:g} {name}" for name, weight in terms.items()) + kl),
        ("quantization noise", noise),
        (
            "optimizer",
            f"{schedule.optimizer}, learning rate {schedule.learning_rate:g}, {schedule.warmup_steps:,} steps of "
            f"warm-up, cosine to {schedule.final_share:.0%}, gradient norm <= {schedule.clip_norm:g}, "
            f"EMA {schedule.ema_decay:g}",
        ),
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
    rows = [
        (name, f"{min(numbers):.4f}", f"{max(numbers):.4f}")
        for name, numbers in (("mean", latents.mean), ("standard deviation", latents.std))
    ]
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
