# SPDX-License-Identifier: Apache-2.0
"""A small training script: a DataLoader whose workers encode. `load_with_workers.py TARGET fork|spawn fresh|used`."""

import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from latentwire_client import Client


class Encoded(Dataset[torch.Tensor]):
    """Eight images, encoded by whoever asks for them."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.client.encode(np.full((16, 16, 3), index, np.uint8)).values[0])


def main() -> None:
    target, method, before = sys.argv[1:]
    client = Client(target)
    if before == "used":
        client.info()
    loader = DataLoader(Encoded(client), batch_size=2, num_workers=2, multiprocessing_context=method)
    for _ in range(2):
        print([list(batch.shape) for batch in loader])
    client.info()


if __name__ == "__main__":
    main()
