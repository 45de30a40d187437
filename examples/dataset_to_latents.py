# SPDX-License-Identifier: Apache-2.0
"""Encode a folder of images to latents for a training set.

    latentwire serve
    python examples/dataset_to_latents.py photos latents

Writes one safetensors file for each image: the raw moments (mean and log-variance) in float16, with the latent space
and the digest of the weights. Training code draws samples from the moments, scaled as the diffusion model wants them.
"""

import argparse
from pathlib import Path

from latentwire_client import Client

parser = argparse.ArgumentParser(description="Encode a folder of images to latents.")
parser.add_argument("images", type=Path)
parser.add_argument("latents", type=Path)
parser.add_argument("--server", default="localhost:50051")
arguments = parser.parse_args()

arguments.latents.mkdir(parents=True, exist_ok=True)
paths = sorted(
    path for path in arguments.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
)
failed = 0

with Client(arguments.server) as client:
    # A bounded number of images is in flight. Answers come in any order, and a bad image never ends the stream.
    for item in client.encode_stream(paths, kind="moments"):
        if item.result is not None:
            # Images of one name in two folders do not meet: their folders are kept.
            target = arguments.latents / item.source.relative_to(arguments.images).with_suffix(".safetensors")
            target.parent.mkdir(parents=True, exist_ok=True)
            item.result.save(target)
        else:
            failed += 1
            print(f"{item.source}: {item.error}")

print(f"{len(paths) - failed} encoded, {failed} failed")
