# SPDX-License-Identifier: Apache-2.0
"""The committed stubs and descriptor are what the committed protocols generate, and the protocols keep their style."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MADE = ("latentwire_proto/v1/latent_codec_pb2.pyi", "latentwire_proto/inference/grpc_service.binpb")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_what_is_committed_is_what_the_protocols_generate() -> None:
    result = run(sys.executable, "proto/generate.py", "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("made", MADE)
def test_what_was_edited_by_hand_is_named(tmp_path: Path, made: str) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    with (tmp_path / "proto" / made).open("a", encoding="utf-8") as file:
        file.write("\nEDITED: int\n")
    result = run(sys.executable, tmp_path / "proto" / "generate.py", "--check")
    assert result.returncode == 1
    assert made in result.stderr
    assert "make proto" in result.stderr


def test_the_protocol_passes_its_linter() -> None:
    # Among its rules (.protolint.yaml): every message, field, enum value and RPC has a comment.
    result = run(Path(sysconfig.get_path("scripts")) / "protolint", "lint", "proto")
    assert result.returncode == 0, result.stdout + result.stderr
