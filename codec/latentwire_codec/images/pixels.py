# SPDX-License-Identifier: Apache-2.0
"""uint8 pixels (B,H,W,3) in 0..255 <-> float images (B,3,H,W) in [-1,1], on whichever device they are."""

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """Map uint8 (B,H,W,3) in 0..255 to float32 (B,3,H,W) in [-1,1]."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_unit(images: Tensor) -> Tensor:
    """Map float images, nominally [-1,1], to [0,1] in the same dtype, clamped; their axes stay."""
    return images.float().add(1.0).div_(2.0).clamp_(0.0, 1.0).to(images.dtype)


def to_uint8(images: Tensor) -> Tensor:
    """Map float (B,3,H,W), nominally [-1,1], to uint8 (B,H,W,3): rounded half to even, clamped to 0..255."""
    levels = images.float().add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
