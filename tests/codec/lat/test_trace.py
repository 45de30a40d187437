# SPDX-License-Identifier: Apache-2.0
"""The bits of the channels are those of the file, and of the channel that needs them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.lat.payload import compress_latents
from latentwire_codec.lat.trace import channel_bits
from latentwire_core.container import unpack
from latentwire_core.errors import ChecksumMismatch

CODER_WORDS = 64 + 8 * 8
"""Bits that a range coder ends with, and that bytes are filled up with, at most."""


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)),
    outlier=st.sampled_from([0.0, 30.0, 3e4]),
    quality=st.sampled_from(["cache", "low", "lossless"]),
    seed=st.integers(0, 1000),
)
def test_channels_sum_to_the_sections_of_their_integers(
    shape: tuple[int, int, int], outlier: float, quality: str, seed: int
) -> None:
    latents = np.random.default_rng(seed).normal(size=shape)
    latents[0, 0, 0] += outlier
    payload = compress_latents(latents.astype(np.float16 if quality == "lossless" else np.float32), quality)
    _, sections = unpack(payload)
    stored = 8 * (len(sections.symbols) + len(sections.escapes) + len(sections.low_bits))
    bits = channel_bits(payload)
    assert bits.shape == shape[:1]
    assert bits.sum() - 1 <= stored <= bits.sum() + CODER_WORDS


def test_a_channel_of_noise_takes_more_than_a_flat_one() -> None:
    noise = np.random.default_rng(1).normal(size=(1, 16, 16))
    flat, noisy, flat_again = channel_bits(
        compress_latents(np.concatenate([0 * noise, noise, 0 * noise]).astype(np.float32), 0.25, units=(1.0,) * 3)
    )
    # The entropy of N(0, 1) in steps of 1/4 is 2.05 + 2 bits.
    assert 4.0 * 256 < noisy < 5.0 * 256
    assert flat < 0.3 * 256
    assert flat_again < noisy / 2


def test_what_cannot_be_decoded_is_refused() -> None:
    payload = bytearray(compress_latents(np.ones((2, 3, 4), np.float32)))
    payload[-1] ^= 1
    with pytest.raises(ChecksumMismatch):
        channel_bits(bytes(payload))
