# SPDX-License-Identifier: Apache-2.0
"""Specs of VAEs, for tests that need no network."""

from dataclasses import replace
from typing import Any

from latentwire_codec.runtime.spec import AutoencoderSpec

SPEC = AutoencoderSpec(
    class_name="AutoencoderKL",
    config={},
    latent_space="",
    weights_digest="",
    file_sha256="",
    latent_channels=4,
    downsample_factor=8,
    fixed_size=None,
    scale=(1.0,),
    shift=(0.0,),
    latent_units=None,
    parameters=1,
    weights_bytes=4,
    device="cpu",
    dtype="float32",
)


def spec_with(**changes: Any) -> AutoencoderSpec:
    """Return the spec of a small AutoencoderKL with f = 8, C = 4 and no scaling, with changes."""
    return replace(SPEC, **changes)
