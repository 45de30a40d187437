# SPDX-License-Identifier: Apache-2.0
"""What a model is loaded from -> what it is called. Needs no torch."""

from pathlib import Path

SAFETENSORS = (".safetensors", ".sft")
# Files that name their kind. `.bin` is what diffusers falls back to unasked, so it needs to be allowed.
PICKLES = (".ckpt", ".pt", ".pth")
WEIGHT_SUFFIXES = (*SAFETENSORS, *PICKLES, ".bin")


def model_name(source: str) -> str:
    """Map what `load_autoencoder` takes to its last path component, without the suffix of weights."""
    path = Path(source).resolve()
    return path.stem if path.suffix.lower() in WEIGHT_SUFFIXES else path.name
