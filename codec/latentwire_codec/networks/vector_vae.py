# SPDX-License-Identifier: Apache-2.0
"""VectorVAE, one latent vector for a whole image: images (B,3,S,S) in [-1,1] <-> latents (B,d,1,1).

    x ──┬─ dct: linear, a 16x16 thumbnail -> d ─(+)── mean      z ──┬─ idct: linear, d -> 16x16, scaled to S ─(+)── y
        └─ residual: S/2, S/4 ... 4x4, linear ───┴─── logvar        └─ residual: linear, 4x4 ... S/4, S/2, S ──┘

The linear pair starts as the d lowest frequencies of the image, or as the principal components of given images, and the
residuals start at zero: an untrained network blurs, and training begins there instead of at grey. There is no
normalisation layer: an image's result depends on nothing else, and on drawn faces GroupNorm was measured to teach it
nothing faster.

Plain torch: it trains and runs without diffusers. `pipeline_vae.py` gives it the interface of a diffusers VAE.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from latentwire_codec.networks.latent_vae import GaussianVAE, pin_logvar, zero
from latentwire_codec.networks.principal_components import principal_components
from latentwire_core.errors import TensorError

IMAGE_SIZES = (16, 32, 64, 128, 256)
THUMBNAIL_SIDE = 16
MAX_LATENT_DIM = 3 * THUMBNAIL_SIDE**2
GRID_SIDE = 4
LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0


def widths_at(image_size: int, width: int) -> list[int]:
    """Map S and the width at S/2 to the channels at S/2, S/4 ... 4x4: doubled each time, up to four times.

    Raises:
        ValueError: S is not one of `IMAGE_SIZES`, or the width is below 1.
    """
    if image_size not in IMAGE_SIZES:
        raise ValueError(f"image_size is {image_size}; it must be one of {', '.join(map(str, IMAGE_SIZES))}")
    if width < 1:
        raise ValueError(f"width is {width}; it must be >= 1")
    halvings = (image_size // GRID_SIDE).bit_length() - 1
    return [width * min(2**level, 4) for level in range(halvings)]


def lowest_frequencies(count: int) -> tuple[Tensor, Tensor]:
    """Map a number of latents, 1..768, to as many frequencies of a 16x16 RGB thumbnail, the strongest in photographs.

    The frequencies belong to the orthonormal two-dimensional DCT-II of luma and of two differences of colours. The
    amplitudes of photographs fall about as 1/frequency (Field, Relations between the statistics of natural images and
    the response properties of cortical cells, 1987). The amplitudes of colour differences are about half as large as
    those of luma.

    Returns:
        the frequencies as orthonormal rows, float32 (count, 3*16*16), the strongest first; and the factors that make
        their coefficients about 1, float32 (count, 1).

    Raises:
        ValueError: the count is out of range.
    """
    if not 1 <= count <= MAX_LATENT_DIM:
        raise ValueError(f"latent_dim is {count}; it must be in 1..{MAX_LATENT_DIM}")
    side = torch.arange(THUMBNAIL_SIDE)
    waves = torch.cos(math.pi / THUMBNAIL_SIDE * torch.outer(side, side + 0.5))
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    rows = torch.einsum("ci,vy,ux->cvuiyx", colours, waves, waves).reshape(MAX_LATENT_DIM, -1)
    frequency = torch.hypot(side[:, None].float(), side.float()) + 1
    gains = (torch.tensor([1.0, 2.0, 2.0])[:, None, None] * frequency / THUMBNAIL_SIDE).reshape(-1, 1)
    strongest = gains.flatten().argsort(stable=True)[:count]
    return nn.functional.normalize(rows[strongest], dim=1), gains[strongest]


def linear(weight: Tensor) -> nn.Linear:
    """Build the linear layer that multiplies by a matrix (n_out,n_in), without a bias at first."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        nn.init.zeros_(layer.bias)
    return layer


def down(n_in: int, n_out: int) -> nn.Conv2d:
    """Build the layer that halves the resolution: (B,n_in,H,W) to (B,n_out,H/2,W/2)."""
    return nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1)


def up(n_in: int, n_out: int) -> nn.ConvTranspose2d:
    """Build the layer that doubles the resolution: (B,n_in,H,W) to (B,n_out,2H,2W)."""
    # Kernel 4 at stride 2: each output sums four places, evenly, without a checkerboard.
    return nn.ConvTranspose2d(n_in, n_out, kernel_size=4, stride=2, padding=1)


class Encoder(nn.Module):
    """Images (B,3,S,S) in [-1,1] -> moments (B,2d,1,1), mean before log-variance; arguments as `VectorVAE`'s."""

    def __init__(self, image_size: int, latent_dim: int, width: int) -> None:
        super().__init__()
        widths = widths_at(image_size, width)
        rows, gains = lowest_frequencies(latent_dim)
        self.shape = (3, image_size, image_size)
        self.thumbnail = nn.AvgPool2d(image_size // THUMBNAIL_SIDE)
        self.dct = linear(gains * rows)
        head = zero(nn.Linear(widths[-1] * GRID_SIDE**2, 2 * latent_dim))
        # A posterior that is narrow at first (sigma = e^-2) lets the decoder learn before the noise matters.
        nn.init.constant_(head.bias[latent_dim:], -4.0)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([3, *widths]):
            layers += [down(n_in, n_out), nn.ReLU()]
        self.residual = nn.Sequential(OrderedDict(down=nn.Sequential(*layers), flatten=nn.Flatten(), head=head))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,3,S,S) in [-1,1] to moments (B,2d,1,1); raises TensorError for images of another size."""
        check_shape("images", x, self.shape)
        mean, logvar = self.residual(x).chunk(2, dim=1)
        mean = mean + self.dct(self.thumbnail(x).flatten(1))
        return torch.cat([mean, logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)], dim=1)[:, :, None, None]

    def pin_logvar(self, logvar: float = LOGVAR_MIN) -> None:
        """Set every log-variance to a number, at least LOGVAR_MIN, whatever the image.

        With LOGVAR_MIN a sample is the mode and e^(LOGVAR_MIN / 2) = 3e-7 of standard normal noise: a point. Nothing
        but weight decay moves the log-variance while neither noise nor KL is trained.
        """
        pin_logvar(cast(nn.Linear, self.residual.get_submodule("head")), max(logvar, LOGVAR_MIN))


class Decoder(nn.Module):
    """Latents (B,d,1,1) -> images (B,3,S,S), about [-1,1] and not clamped; arguments as `VectorVAE`'s."""

    def __init__(self, image_size: int, latent_dim: int, width: int) -> None:
        super().__init__()
        widths = widths_at(image_size, width)[::-1]
        rows, gains = lowest_frequencies(latent_dim)
        self.shape = (latent_dim, 1, 1)
        self.idct = linear((rows / gains).T)
        self.enlarge = nn.Upsample(scale_factor=image_size // THUMBNAIL_SIDE, mode="bilinear")
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.ReLU(), up(n_in, n_out)]
        self.residual = nn.Sequential(
            OrderedDict(
                linear=nn.Linear(latent_dim, widths[0] * GRID_SIDE**2),
                grid=nn.Unflatten(1, (widths[0], GRID_SIDE, GRID_SIDE)),
                up=nn.Sequential(*layers),
                relu=nn.ReLU(),
                up_out=zero(up(widths[-1], 3)),
            )
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map raw latents (B,d,1,1) to images (B,3,S,S); raises TensorError for latents of another shape."""
        check_shape("latents", z, self.shape)
        vector = z.flatten(1)
        thumbnail = self.idct(vector).unflatten(1, (3, THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return cast(Tensor, self.enlarge(thumbnail) + self.residual(vector))


class VectorVAE(GaussianVAE):
    """Images (B,3,S,S) <-> latent vectors (B,d,1,1).

    Args:
        image_size: S, the side of the images in pixels: 16, 32, 64, 128 or 256.
        latent_dim: d, the number of latents, 1..768.
        width: channels at half the resolution; they double with each halving, up to four times as many. At S = 128 a
            width of 16 costs about what 32 does at 64, and 32 four times that.

    Raises:
        ValueError: an argument is out of range.
    """

    encoder: Encoder
    decoder: Decoder

    def __init__(self, image_size: int = 64, latent_dim: int = 64, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder(image_size, latent_dim, width)
        self.decoder = Decoder(image_size, latent_dim, width)

    def begin_with(self, batches: Iterable[Tensor], unit_variance: bool) -> None:
        """Make the linear pair the principal components of images.

        Args:
            batches: images (B,3,S,S) in [-1,1]; many more in all than there are latents.
            unit_variance: give each latent variance 1, where the KL term wants it; else its axis has length 1.
        """
        thumbnails = (self.encoder.thumbnail(images).flatten(1) for images in batches)
        pair = principal_components(thumbnails, self.encoder.dct.out_features, unit_variance)
        pair.fill(self.encoder.dct, self.decoder.idct)


def check_shape(name: str, batch: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a batch whose elements have another shape; raises TensorError."""
    if batch.shape[1:] != shape:
        raise TensorError(f"{name} have the shape {tuple(batch.shape)}; (B, {', '.join(map(str, shape))}) is needed")
