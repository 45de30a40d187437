# SPDX-License-Identifier: Apache-2.0
"""This machine and checkout -> what a reader needs to repeat a run: processor, versions, commit, sources."""

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import latentwire_codec

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "latentwire", "bjontegaard", "diffusers", "grpcio", "numba", "numpy", "pillow", "pillow-jxl-plugin",
    "ssimulacra2", "torch", "zstandard",
)  # fmt: skip
LIBRARIES = {"JPEG": "libjpeg_turbo", "WebP": "webp", "AVIF": "avif", "JPEG 2000": "jpg_2000"}
GIB = 2**30
# Modules that rows do not depend on: they only show what was measured.
SHOWING = {"__main__.py", "arguments.py", "page.py", "pictures.py", "plots.py", "run.py", "summary.py"}


def environment(benchmark: str) -> dict[str, Any]:
    """Return machine, versions, commit and a digest of the sources of a benchmark."""
    import torch
    from PIL import features

    return {
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
            **{f"{name} in Pillow": features.version(library) for name, library in LIBRARIES.items()},
        },
        "commit": _commit(),
        "sources": source_digest(benchmark),
    }


def source_digest(benchmark: str) -> str:
    """Return 16 hex digits that change with any source of the codec or of the benchmark that a row depends on.

    A commit is not enough: rows that were measured before an edit must not be taken for rows of the edited sources.
    """
    codec, benchmarks = Path(latentwire_codec.__file__).parent, Path(__file__).parents[1]
    folders = (benchmarks / "report", benchmarks / benchmark)
    measuring = [path for folder in folders for path in folder.rglob("*.py") if path.name not in SHOWING]
    named = {path.relative_to(benchmarks).as_posix(): path for path in measuring}
    for path in (*codec.rglob("*.py"), *codec.rglob("*.safetensors")):
        named[path.relative_to(codec.parent).as_posix()] = path
    digest = hashlib.sha256()
    for name, path in sorted(named.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def status_bytes(name: str, process: int | str = "self") -> int:
    """Return a number of /proc/PROCESS/status, such as VmHWM, in bytes; raises OSError where there is no /proc."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _commit() -> str:
    """Return the commit, with a + where tracked files differ from it; empty outside a checkout."""
    try:
        found, changed = (
            subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found + ("+" if changed else "")
