# SPDX-License-Identifier: Apache-2.0
"""The state from which an interrupted run continues <-> one file, which is replaced as a whole.

The file is read with torch's restricted unpickler, which makes tensors and plain values and runs no code.
"""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from latentwire_core.errors import DataError
from latentwire_core.files import write_whole
from latentwire_train.config import TrainingConfig

STATE, RUN = "state.pt", "run.json"
# These values may differ when a run goes on: they change neither the samples nor the weights.
FREE = ("log_every", "evaluate_every", "save_every", "workers", "cache_mib")


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state, whole or not at all.

    Raises:
        OSError: the file cannot be written; the earlier file stays as it was.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_whole(folder / STATE, buffer.getvalue())


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the state that `save_state` wrote, on a device; None if there is no file.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        return cast(dict[str, Any], torch.load(path, map_location=device, weights_only=True))
    except Exception as error:
        raise DataError(f"{path} cannot be read: {error}; delete it to start this run from its beginning") from error


def describe_run(config: TrainingConfig, digest: str, ranks: int) -> dict[str, Any]:
    """Return the values that decide a run's course, and torch's version, as plain values."""
    return {"config": config.as_dict(), "data_digest": digest, "processes": ranks, "torch": str(torch.__version__)}


def open_run(folder: Path, description: Mapping[str, Any]) -> None:
    """Make the folder of a run, or check that an existing folder holds the same run.

    Raises:
        DataError: the folder holds a run of another configuration, data or number of processes, which the message
            names, or other files.
        OSError: the folder cannot be written.
    """
    path = folder / RUN
    new = json.loads(json.dumps(description))
    if path.is_file():
        try:
            old = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path} cannot be read: {error}; give another folder") from error
        differences = sorted(_differences(old, new))
        if differences:
            raise DataError(
                f"{folder} holds a run with another {', '.join(differences)}; give another folder, or the command that "
                f"began it (see {RUN})"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no {RUN}; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(new, indent=2) + "\n").encode())


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Map two trees to the dotted names of the values that differ, without those of `FREE`."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in old.keys() | new.keys():
            if key not in FREE and (name or key != "torch"):
                found += _differences(old.get(key), new.get(key), f"{name}.{key}".removeprefix("."))
        return found
    return [] if old == new else [f"{name} ({_short(old)} there, {_short(new)} here)"]


def _short(value: Any) -> str:
    """Return the text of a value, cut where it is long (the digest of all images, say)."""
    return re.sub(r"(?s)^(.{40}).+", r"\1...", str(value))
