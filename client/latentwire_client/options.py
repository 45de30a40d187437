# SPDX-License-Identifier: Apache-2.0
"""What every encoding, or compressing, method takes beside its image."""

from collections.abc import Sequence
from typing import TypedDict

from latentwire_core.kinds import LatentKind


class EncodeOptions(TypedDict, total=False):
    """The keyword arguments of `encode` and `encode_stream`; all are optional.

    kind: `mode` (the default), `sample` or `moments` (mean and log-variance).
    scaled: scaled latents, as a diffusion model works on, instead of raw ones (the default).
    dtype: `float16` (the default), `float32`, or `bfloat16`, which travels as such and arrives as float32.
    seeds: for samples, 0..2^64-1, one for each image: of an array, of a list, or of a stream in its order.
    size: (height, width) to scale and crop an image file to; default: its own.
    model: a served name; default: the client's, else the server's.
    """

    kind: LatentKind | str
    scaled: bool
    dtype: str
    seeds: Sequence[int]
    size: tuple[int, int] | None
    model: str


class CompressOptions(TypedDict, total=False):
    """The keyword arguments of `compress` and `compress_stream`; all are optional.

    quality: `cache` (the default), `high`, `medium`, `low`, `lossless` (float16 latents, bit for bit), or the
        quantizer's step in units, above 0: smaller is finer.
    refinement: iterations of gradient descent by which the latents are fitted to the image, so that it decodes closer
        in as many bytes; default: 0, none; at most `client.info().limits.max_refinement`. Each takes about as long as
        encoding and decoding the image twice: a call may need a longer `Timeout.call_s`.
    size: (height, width) to scale and crop an image file to; default: its own.
    model: a served name; default: the client's, else the server's.
    """

    quality: str | float
    refinement: int
    size: tuple[int, int] | None
    model: str
