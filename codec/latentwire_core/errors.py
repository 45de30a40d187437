# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between pixels and latents, one class per cause.

    CodecError
    ├── ImageError              an image file that cannot be read or written
    │   └── ImageTooLarge       ... because it is over a size limit
    ├── TensorError             a raw tensor of the wrong length, shape or dtype
    │   └── TensorTooLarge      ... because it holds too many images
    ├── NonFiniteError          NaN or infinity in a tensor that comes in or goes out
    ├── BitstreamError          bytes that are not a `.lat` payload as it was written
    │   ├── UnsupportedVersion  ... but of a version that this release does not know
    │   ├── Truncated           ... because they end too early
    │   ├── TrailingBytes       ... because they go on after the end
    │   ├── ChecksumMismatch    ... because a part was changed
    │   └── Malformed           ... because a value is out of its range, or contradicts another
    └── ModelError
        ├── UnknownModel        no model of that name
        ├── LatentSpaceMismatch latents of one space given to a model of another
        └── CheckpointError     weights that cannot be found, read or trusted

A message says what was wrong, the value, the limit and the remedy.
"""


class CodecError(Exception):
    """Base of every error that `latentwire_codec` raises on purpose."""


class ImageError(CodecError):
    """The bytes are not an image that can be read, or the image cannot be written."""


class ImageTooLarge(ImageError):
    """The image's header announces more pixels, or a longer side, than the limits allow."""


class TensorError(CodecError, ValueError):
    """A raw tensor whose length, shape or dtype is not what was announced or needed."""


class TensorTooLarge(TensorError):
    """A raw tensor of more images than the limits allow; one whose images are too large is an ImageTooLarge."""


class NonFiniteError(CodecError):
    """NaN or infinity in an input tensor, or in an output even when computed in float32."""


class ModelError(CodecError):
    """Base of the errors about a model and its weights."""


class UnknownModel(ModelError):
    """No model of that name is bundled, cached or served."""


class LatentSpaceMismatch(ModelError):
    """Latents of one latent space were given to a model of another."""


class CheckpointError(ModelError):
    """The weights or the configuration cannot be found, read or trusted."""


class BitstreamError(CodecError):
    """The bytes are not a `.lat` payload, or not as it was written."""


class UnsupportedVersion(BitstreamError):
    """The payload is of a version that this release does not read."""


class Truncated(BitstreamError):
    """The payload ends before what its header announces."""


class TrailingBytes(BitstreamError):
    """The payload goes on after what its header announces."""


class ChecksumMismatch(BitstreamError):
    """The header or a section was changed after it was written."""


class Malformed(BitstreamError):
    """A value is out of its range, or two contradict each other, although the checksums are right."""
