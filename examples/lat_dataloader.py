# SPDX-License-Identifier: Apache-2.0
"""Read `.lat` files in a torch DataLoader: a latent cache, on Kodak 4.7 times smaller than float16.

    latentwire compress photos -o cache --quality cache
    python examples/lat_dataloader.py cache

`decompress_latents` needs no model and no torch: DataLoader workers decode in numpy. What a diffusion model trains on
are scaled latents; scale and shift are the VAE's, here those of the bundled model.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from latentwire_codec import decompress_latents, load_autoencoder


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


if __name__ == "__main__":  # workers may import this file
    parser = argparse.ArgumentParser(description="Read .lat files in a DataLoader.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()

    spec = load_autoencoder("f8c4", device="cpu").spec
    dataset = LatFolder(arguments.folder, spec.latent_space, spec.scale, spec.shift)
    # Images of one size make batches; for several sizes give the loader a sampler that groups them.
    for batch in DataLoader(dataset, batch_size=arguments.batch, num_workers=arguments.workers):
        print(f"{tuple(batch.shape)}  mean {batch.mean():+.3f}  standard deviation {batch.std():.3f}")
