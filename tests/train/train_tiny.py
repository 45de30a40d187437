# SPDX-License-Identifier: Apache-2.0
"""A training run in a process of its own, to be killed: `python train_tiny.py CONFIG.json PHOTOS RUN`."""

import json
import sys
from pathlib import Path

import torch

from latentwire_train.loop import train
from latentwire_train.recipes import config_from
from latentwire_train.record.observer import Observer


class Silent(Observer):
    """An observer that tells nobody."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    config, photos, folder = map(Path, sys.argv[1:])
    result = train(config_from(json.loads(config.read_text())), photos, folder, Silent())
    print("stopped" if result.stopped else "done", result.steps, flush=True)
