# SPDX-License-Identifier: Apache-2.0
"""Training with nothing but torch, numpy, Pillow and safetensors, for machines that have no more.

    python -m latentwire_train pack FOLDER PHOTOS.npz --short-side 320 --quality 70
    python -m latentwire_train train RECIPE DATA RUN [section.key=value ...]

`latentwire train` is the same with a display, and with TensorBoard events and curves. What the codec needs to know of
trained models is measured by two commands more, which load them as the server does and so need diffusers:

    python -m latentwire_train units MODEL FOLDER
    python -m latentwire_train prior FOLDER PRIOR.safetensors --model MODEL [--model MODEL ...]
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from latentwire_core.errors import CodecError
from latentwire_core.files import write_whole
from latentwire_train.data.folder import scan_folder
from latentwire_train.data.pack import PackOptions, pack
from latentwire_train.loop import train
from latentwire_train.recipes import load_config
from latentwire_train.record.observer import LoggingObserver


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0 done, 1 refused, 130 interrupted after a checkpoint."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire_train", description="Pack images, train a VAE, measure its latents."
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
    measuring = commands.add_parser("units", help="a model's folder -> latent_units in its config.json, and on stdout")
    measuring.add_argument("model", type=Path, help="its folder")
    measuring.add_argument("folder", type=Path, help="photographs")
    measuring.add_argument("--images", type=int, default=24, help="taken evenly from the folder (default 24)")
    fitting = commands.add_parser("prior", help="a folder of images -> the prior that codes models' latents of them")
    fitting.add_argument("folder", type=Path, help="photographs")
    fitting.add_argument("out_file", type=Path)
    fitting.add_argument("--model", action="append", required=True, help="a bundled name or a folder; repeatable")
    fitting.add_argument("--images", type=int, default=96, help="taken evenly from the folder (default 96)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if options.command == "pack":
            stored = PackOptions(quality=options.quality, short_side=options.short_side)
            print(pack(scan_folder(options.folder), options.out_file, stored))
            return 0
        if options.command == "units":
            print(json.dumps(_measure_units(options.model, _some(options.folder, options.images))))
            return 0
        if options.command == "prior":
            _fit_prior(options.model, _some(options.folder, options.images), options.out_file)
            return 0
        config = load_config(options.recipe, options.overrides)
        return 130 if train(config, options.data, options.run, LoggingObserver()).stopped else 0
    except (CodecError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _some(folder: Path, count: int) -> list[Path]:
    """Return the paths of so many images of a folder, evenly spaced; all where there are fewer."""
    if count < 1:
        raise ValueError(f"--images is {count}; it must be >= 1")
    source = scan_folder(folder)
    return [source.root / source.items[index].path for index in range(0, len(source), -(-len(source) // count))]


def _measure_units(model: Path, paths: Sequence[Path]) -> tuple[float, ...]:
    from latentwire_codec.load import load_autoencoder
    from latentwire_train.rate_fitting import units_of

    units = units_of(load_autoencoder(str(model), dtype="float32"), paths)
    file = model / "config.json"
    write_whole(file, (json.dumps(json.loads(file.read_text()) | {"latent_units": units}, indent=2) + "\n").encode())
    return units


def _fit_prior(models: Sequence[str], paths: Sequence[Path], out_file: Path) -> None:
    from latentwire_codec.load import load_autoencoder
    from latentwire_train.rate_fitting import prior_for

    loaded = [load_autoencoder(model, dtype="float32") for model in models]
    write_whole(out_file, prior_for(loaded, paths).to_bytes())


if __name__ == "__main__":
    sys.exit(main())
