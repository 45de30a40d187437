# SPDX-License-Identifier: Apache-2.0
"""Training with nothing but torch, numpy, Pillow and safetensors, for machines that have no more.

    python -m latentwire_codec.training pack FOLDER PHOTOS.npz --short-side 320 --quality 70
    python -m latentwire_codec.training train RECIPE DATA RUN [section.key=value ...]

`latentwire train` is the same with a display, and with TensorBoard events and curves.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from latentwire_codec.errors import CodecError
from latentwire_codec.training.data import scan_folder
from latentwire_codec.training.loop import train
from latentwire_codec.training.observer import LoggingObserver
from latentwire_codec.training.pack import PackOptions, pack
from latentwire_codec.training.recipes import load_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0 done, 1 refused, 130 interrupted after a checkpoint."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire_codec.training", description="Pack images, train a VAE."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="a folder of images -> one file, re-encoded as WebP")
    packing.add_argument("folder", type=Path)
    packing.add_argument("out_file", type=Path)
    packing.add_argument("--short-side", type=int, help="scale larger images down to it, pixels")
    packing.add_argument("--quality", type=int, help="of WebP, 1..100")
    training = commands.add_parser("train", help="a recipe and a folder or pack of images -> a folder with a VAE")
    training.add_argument("recipe")
    training.add_argument("data", type=Path)
    training.add_argument("run", type=Path)
    training.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if options.command == "pack":
            stored = PackOptions(quality=options.quality, short_side=options.short_side)
            print(pack(scan_folder(options.folder), options.out_file, stored))
            return 0
        config = load_config(options.recipe, options.overrides)
        return 130 if train(config, options.data, options.run, LoggingObserver()).stopped else 0
    except (CodecError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
