# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> the safetensors files of musubi-tuner, all in one `cache_directory`.

    folder/photo.jpg -> photo_1400x0900_zi.safetensors (the size is the image's own; folders are dropped)

musubi-tuner trains on a file only where its text embeddings lie beside it, and its own cache command deletes files of
images that are not in its data set.

Source: kohya-ss/musubi-tuner (30c658c), `src/musubi_tuner/dataset/cache_io.py`, `image_video_dataset.py`,
`zimage_cache_latents.py`, `qwen_image/qwen_image_autoencoder_kl.py`.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latentwire_cache.buckets.frame import Frame
from latentwire_cache.formats.content import cast, without_suffix
from latentwire_cache.formats.encoded import Encoded, File, NoIndex, Space, distinct, scaled
from latentwire_core.files import to_safetensors


@dataclass(frozen=True)
class Musubi(NoIndex):
    """The files of one architecture: the mode, in the dtype of the VAE.

    Attributes:
        name: a key of `FORMATS`.
        short: the architecture in file names.
        architecture: the architecture in the metadata.
        has_frames: whether the latents have an axis of frames, of length 1, and are stored scaled.
    """

    name: str
    short: str
    architecture: str
    has_frames: bool
    rule: str = "musubi"
    needs: frozenset[str] = frozenset({"mode"})
    per_item: bool = True

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the path of the image's file."""
        width, height = frame.original
        return (f"{posixpath.basename(without_suffix(key))}_{width:04d}x{height:04d}_{self.short}.safetensors",)

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield a safetensors file for each image."""
        return distinct((item.key, (self.paths(item.key, item.frame)[0], self._file(item, space))) for item in items)

    def _file(self, item: Encoded, space: Space) -> bytes:
        latents = cast(scaled(item.mean, space) if self.has_frames else item.mean, space.dtype, item.key)
        height, width = latents.shape[1:]
        metadata = {
            "architecture": self.architecture,
            "width": str(item.frame.original[0]),
            "height": str(item.frame.original[1]),
            "format_version": "1.0.1",
        }
        stored = latents[:, None] if self.has_frames else latents
        return to_safetensors({f"latents_1x{height}x{width}_{space.dtype}": stored}, metadata)


Z_IMAGE = Musubi("musubi-z-image", "zi", "z_image", has_frames=False)
QWEN_IMAGE = Musubi("musubi-qwen-image", "qi", "qwen_image", has_frames=True)
KREA2 = Musubi("musubi-krea2", "kr2", "krea2", has_frames=True)
