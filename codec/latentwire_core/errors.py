# SPDX-License-Identifier: Apache-2.0
"""The errors between pixels and latents, one class for each cause.

Every message names the fault, the value, the limit and the remedy.
"""


class CodecError(Exception):
    """Base of all errors that `latentwire_codec` raises on purpose."""


class ImageError(CodecError):
    """An image file cannot be read, or an image cannot be written."""


class ImageTooLarge(ImageError):
    """The image's header announces more pixels, or a longer side, than the limits allow."""


class TensorError(CodecError, ValueError):
    """A raw tensor does not have the announced or needed length, shape, dtype or range."""


class TensorTooLarge(TensorError):
    """A raw tensor holds more images than the limits allow; a tensor of too large images raises ImageTooLarge."""


class NonFiniteError(CodecError):
    """An input tensor, or an output even when computed in float32, holds NaN or infinity."""


class DataError(CodecError):
    """Images cannot be taken from a source: none can be used, labels do not match, or too many are damaged."""


class ModelError(CodecError):
    """Base of the errors about a model, its device and its weights."""


class UnknownModel(ModelError):
    """No model of that name is bundled, on disk, cached or served."""


class LatentSpaceMismatch(ModelError):
    """The latents belong to another latent space than the model."""


class CheckpointError(ModelError):
    """The weights or the configuration cannot be found, read or trusted."""


class BitstreamError(CodecError):
    """The bytes are no `.lat` payload, or a damaged one."""


class UnsupportedVersion(BitstreamError):
    """The payload has a version, or was coded with tables, that this release does not know."""


class Truncated(BitstreamError):
    """The payload is shorter than its header announces."""


class TrailingBytes(BitstreamError):
    """The payload is longer than its header announces."""


class ChecksumMismatch(BitstreamError):
    """The header or a section was changed after it was written."""


class Malformed(BitstreamError):
    """A value is out of its range, or two values contradict each other, although the checksums match."""
