# SPDX-License-Identifier: Apache-2.0
"""Read `.lat` files in a torch DataLoader: a latent cache, on Kodak 4.7 times smaller than float16.

    latentwire compress photos -o cache --quality cache --model f8c4
    python examples/lat_dataloader.py cache

`decompress_latents` needs no model and no torch: DataLoader workers decode in numpy. A diffusion model trains on scaled
latents; scale and shift are the VAE's, here those of the bundled model. Each batch holds images of one size.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from latentwire_codec import decompress_latents, load_autoencoder
from latentwire_core.container import read_header


class LatFolder(Dataset[Tensor]):
    """The `.lat` files of a folder as scaled latents, float32 (C,h,w) each.

    Args:
        folder: searched to any depth.
        space: the latent space that all files must name.
        scale: numbers of `scaled = (raw - shift) * scale`, 1 or C.
        shift: likewise.
    """

    def __init__(self, folder: Path, space: str, scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
        self._paths = sorted(folder.rglob("*.lat"))
        if not self._paths:
            raise FileNotFoundError(
                f"{folder} holds no .lat file; `latentwire compress IMAGES -o {folder} --model f8c4` writes them"
            )
        self._space = space
        self._scale, self._shift = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (scale, shift))

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """Decode one file. A damaged one raises `BitstreamError`: checksums are checked."""
        latents, header = decompress_latents(self._paths[index].read_bytes())
        if header.latent_space != self._space:
            raise ValueError(f"{self._paths[index]} is of {header.latent_space}; {self._space} is needed")
        return (torch.from_numpy(latents).float() - self._shift) * self._scale

    def batches(self, size: int) -> Iterator[list[int]]:
        """Yield the indices of at most `size` files at a time, all of one shape; the headers tell the shapes."""
        same_shape: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for index, path in enumerate(self._paths):
            batch = same_shape[read_header(path.read_bytes()).shape]
            batch.append(index)
            if len(batch) == size:
                yield batch.copy()
                batch.clear()
        yield from filter(None, same_shape.values())


if __name__ == "__main__":  # workers may import this file
    parser = argparse.ArgumentParser(description="Read .lat files in a DataLoader.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()

    spec = load_autoencoder("f8c4", device="cpu").spec
    dataset = LatFolder(arguments.folder, spec.latent_space, spec.scale, spec.shift)
    batches = list(dataset.batches(arguments.batch))
    for batch in DataLoader(dataset, batch_sampler=batches, num_workers=arguments.workers):
        print(f"{tuple(batch.shape)}  mean {batch.mean():+.3f}  standard deviation {batch.std():.3f}")
