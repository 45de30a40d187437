# SPDX-License-Identifier: Apache-2.0
"""LatentVAE, our own convolutional VAE: images (B,3,H,W) in [-1,1] <-> latents (B,C,H/8,W/8).

    x ──┬─ klt: linear, 8x8 blocks -> C ────────────────(+)── mean      z ──┬─ iklt: linear, C -> 8x8 blocks ──(+)── y
        └─ residual: 1/4, then 1/8 of the resolution ────┴─── logvar        └─ residual: 1/8, 1/4, 1/2 ─────────┘

`begin_with` sets the linear pair to the Karhunen-Loeve transform of 8x8x3 blocks. The residuals start at zero, so that
training begins at the best linear codec and adds to it. There is no normalisation layer and no attention: each output
depends on a bounded neighbourhood, never on the whole image.

LatentVAE needs torch only, not diffusers. `pipeline_vae.py` gives it the interface of a diffusers VAE.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from latentwire_codec.networks.principal_components import principal_components

L = TypeVar("L", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

DOWNSAMPLE_FACTOR = 8
LOGVAR_MIN, LOGVAR_MAX = -6.0, 2.0


def conv(n_in: int, n_out: int) -> nn.Conv2d:
    """Build the 3x3 convolution that keeps the size."""
    return nn.Conv2d(n_in, n_out, kernel_size=3, padding=1)


def zero(layer: L) -> L:
    """Set a layer to zero and return it: a residual starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Residual block, x + conv(relu(conv(relu(x)))): (B,n,H,W) -> (B,n,H,W)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = conv(n, n)
        self.conv2 = zero(conv(n, n))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,n,H,W) to (B,n,H,W)."""
        return cast(Tensor, x + self.conv2(self.conv1(x.relu()).relu()))


def blocks(n: int, count: int) -> nn.Sequential:
    """Chain `count` blocks of width n."""
    return nn.Sequential(*(Block(n) for _ in range(count)))


def down(n_in: int, n_out: int) -> nn.Conv2d:
    """Build the layer that halves the resolution: (B,n_in,H,W) to (B,n_out,H/2,W/2)."""
    return nn.Conv2d(n_in, n_out, kernel_size=2, stride=2)


def up(n_in: int, n_out: int) -> nn.Sequential:
    """Build the layers that double the resolution: (B,n_in,H,W) to (B,n_out,2H,2W)."""
    return nn.Sequential(nn.Conv2d(n_in, 4 * n_out, kernel_size=1), nn.PixelShuffle(2))


@torch.no_grad()
def pin_logvar(head: nn.Conv2d | nn.Linear, floor: float) -> None:
    """Make the layer of the moments, mean before log-variance, return `floor` for every log-variance."""
    half = len(head.weight) // 2
    head.weight[half:] = 0
    cast(Tensor, head.bias)[half:] = floor


class Encoder(nn.Module):
    """Images (B,3,H,W) in [-1,1] -> moments (B,2C,H/8,W/8): the posterior's mean, then its log-variance.

    `LatentVAE` explains the arguments; the width at 1/2 of the resolution is not used.
    """

    def __init__(self, latent_channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        _, quarter, eighth = widths
        self.klt = nn.Conv2d(3, latent_channels, DOWNSAMPLE_FACTOR, stride=DOWNSAMPLE_FACTOR)
        conv_out = zero(conv(eighth, 2 * latent_channels))
        # A posterior that is narrow at first (sigma = e^-2) lets the decoder learn before the noise matters.
        nn.init.constant_(cast(Tensor, conv_out.bias)[latent_channels:], -4.0)
        self.residual = nn.Sequential(
            OrderedDict(
                unshuffle=nn.PixelUnshuffle(4),
                conv_in=conv(3 * 4 * 4, quarter),
                blocks_quarter=blocks(quarter, depths[0]),
                down=down(quarter, eighth),
                blocks_eighth=blocks(eighth, depths[1]),
                relu=nn.ReLU(),
                conv_out=conv_out,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,3,H,W) in [-1,1], H and W multiples of 8, to moments (B,2C,H/8,W/8)."""
        mean, logvar = self.residual(x).chunk(2, dim=1)
        return torch.cat([mean + _exactly(self.klt, x), logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)], dim=1)

    def pin_logvar(self, logvar: float = LOGVAR_MIN) -> None:
        """Set every log-variance to a number, at least LOGVAR_MIN, whatever the image.

        With LOGVAR_MIN a sample is the mode and e^(LOGVAR_MIN / 2) = 0.05 of standard normal noise: a plain
        autoencoder's. Nothing but weight decay moves the log-variance while neither noise nor KL is trained.
        """
        pin_logvar(cast(nn.Conv2d, self.residual.get_submodule("conv_out")), max(logvar, LOGVAR_MIN))


class Decoder(nn.Module):
    """Latents (B,C,h,w) -> images (B,3,8h,8w), about [-1,1] and not clamped; `LatentVAE` explains the arguments."""

    def __init__(self, latent_channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.iklt = nn.Sequential(
            nn.Conv2d(latent_channels, 3 * DOWNSAMPLE_FACTOR**2, kernel_size=1),
            nn.PixelShuffle(DOWNSAMPLE_FACTOR),
        )
        self.residual = nn.Sequential(
            OrderedDict(
                conv_in=conv(latent_channels, eighth),
                blocks_eighth=blocks(eighth, depths[2]),
                up_quarter=up(eighth, quarter),
                blocks_quarter=blocks(quarter, depths[1]),
                up_half=up(quarter, half),
                blocks_half=blocks(half, depths[0]),
                relu=nn.ReLU(),
                conv_out=zero(conv(half, 3 * 2 * 2)),
                shuffle=nn.PixelShuffle(2),
            )
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map raw latents (B,C,h,w) to images (B,3,8h,8w)."""
        return cast(Tensor, _exactly(self.iklt, z) + self.residual(z))


def _exactly(linear: nn.Module, x: Tensor) -> Tensor:
    """Apply a half of the linear pair without autocast: in bfloat16 the first latents would lose their last digits."""
    if not torch.amp.is_autocast_available(x.device.type):  # the device of shapes alone
        return cast(Tensor, linear(x))
    with torch.autocast(x.device.type, enabled=False):
        return cast(Tensor, linear(x))


class GaussianVAE(nn.Module):
    """Images <-> latents: `encoder` to moments (B,2C,h,w), `decoder` back to pixels."""

    encoder: nn.Module
    decoder: nn.Module

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B,3,H,W) in [-1,1] to mean and logvar, each (B,C,h,w)."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Map raw latents (B,C,h,w) to images (B,3,H,W)."""
        return cast(Tensor, self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images (B,3,H,W) through the posterior's mode."""
        return self.decode(self.encode(x)[0])


class LatentVAE(GaussianVAE):
    """Images (B,3,H,W) <-> latents (B,C,H/8,W/8), H and W multiples of 8.

    Args:
        latent_channels: C of the latents.
        widths: channels at 1/2, 1/4 and 1/8 of the resolution.
        encoder_depths: number of encoder blocks at 1/4 and 1/8.
        decoder_depths: number of decoder blocks at 1/2, 1/4 and 1/8.
    """

    encoder: Encoder
    decoder: Decoder

    def __init__(
        self,
        latent_channels: int = 4,
        widths: Sequence[int] = (48, 96, 192),
        encoder_depths: Sequence[int] = (2, 4),
        decoder_depths: Sequence[int] = (1, 3, 5),
    ) -> None:
        super().__init__()
        self.encoder = Encoder(latent_channels, widths, encoder_depths)
        self.decoder = Decoder(latent_channels, widths, decoder_depths)

    def begin_with(self, batches: Iterable[Tensor], unit_variance: bool) -> None:
        """Make the linear pair the principal components of the 8x8 blocks of images.

        Args:
            batches: images (B,3,H,W) in [-1,1], H and W multiples of 8.
            unit_variance: give each latent variance 1, where the KL term wants it; else its axis has length 1.
        """
        unshuffle = nn.PixelUnshuffle(DOWNSAMPLE_FACTOR)
        samples = (unshuffle(images).flatten(2).mT.flatten(0, 1) for images in batches)
        pair = principal_components(samples, self.encoder.klt.out_channels, unit_variance)
        pair.fill(self.encoder.klt, cast(nn.Conv2d, self.decoder.iklt[0]))
