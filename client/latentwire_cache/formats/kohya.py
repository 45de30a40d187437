# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> the npz files of kohya's sd-scripts, one beside each image.

    photo.jpg -> photo_1400x0900_sdxl.npz (the size is the image's own)

The keys of SD3 and FLUX end with the latents' size, height first. The files hold one size each: a second resolution
goes to a folder of its own, where sd-scripts would add to the file.

Source: kohya-ss/sd-scripts (48d368f), `library/strategy_base.py`, `strategy_sd.py`, `strategy_sd3.py` and
`strategy_flux.py`; `library/train_util.py` (get_crop_ltrb).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentwire_cache.buckets.frame import Frame, Size
from latentwire_cache.formats.content import cast, npz, without_suffix
from latentwire_cache.formats.encoded import Array, Encoded, File, NoIndex, Space, distinct, drawn, scaled

STRIDE = 8
"""What sd-scripts divides the bucket by to find the key of SD3's and FLUX's latents."""


@dataclass(frozen=True)
class Kohya(NoIndex):
    """The files of one family of models.

    Attributes:
        name: a key of `FORMATS`.
        suffix: the end of the file's name.
        sized_keys: whether the keys end with the latents' size.
        is_scaled: whether the latents are stored scaled; sd-scripts scales the others while it trains.
    """

    name: str
    suffix: str
    sized_keys: bool = False
    is_scaled: bool = False
    rule: str = "kohya"
    needs: frozenset[str] = frozenset({"sample"})
    per_item: bool = True

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the path of the image's npz."""
        width, height = frame.original
        return (f"{without_suffix(key)}_{width:04d}x{height:04d}{self.suffix}.npz",)

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield an npz for each image: float32 latents, those of the flipped image and the alpha mask where given."""
        return distinct((item.key, (self.paths(item.key, item.frame)[0], self._npz(item, space))) for item in items)

    def _npz(self, item: Encoded, space: Space) -> bytes:
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "latents": self._stored(item, space),
            "original_size": np.array(item.frame.original),
            "crop_ltrb": np.array(crop_ltrb(item.frame.bucket, item.frame.original)),
        }
        if item.flipped is not None:
            arrays["latents_flipped"] = self._stored(item.flipped, space)
        if item.alpha_mask is not None:
            arrays["alpha_mask"] = item.alpha_mask.astype(np.float32)
        if not self.sized_keys:
            return npz(arrays)
        height, width = item.mean.shape[1:]
        if (width * STRIDE, height * STRIDE) != item.frame.bucket:
            raise ValueError(
                f"the latents of {item.key} are {width}x{height} for {item.frame.bucket[0]}x{item.frame.bucket[1]} "
                f"pixels; sd-scripts finds {self.name}'s latents only at one for {STRIDE} pixels"
            )
        return npz({f"{name}_{height}x{width}": array for name, array in arrays.items()})

    def _stored(self, item: Encoded, space: Space) -> Array:
        raw = drawn(item)
        return cast(scaled(raw, space) if self.is_scaled else raw, "float32", item.key)


def crop_ltrb(bucket: Size, original: Size) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the image, scaled to fit into the bucket: SDXL's conditioning.

    The pixels are cut to cover the bucket instead; the numbers are sd-scripts' own.
    """
    ratio = original[0] / original[1]
    wider = bucket[0] / bucket[1] > ratio
    width, height = (bucket[1] * ratio, bucket[1]) if wider else (bucket[0], bucket[0] / ratio)
    left, top = (bucket[0] - width) // 2, (bucket[1] - height) // 2
    return left, top, left + width, top + height


SD = Kohya("kohya-sd", "_sd")
SDXL = Kohya("kohya-sdxl", "_sdxl")
SD3 = Kohya("kohya-sd3", "_sd3", sized_keys=True)
FLUX = Kohya("kohya-flux", "_flux", sized_keys=True, is_scaled=True)
