# SPDX-License-Identifier: Apache-2.0
"""The committed stubs are what the committed protocol generates, and the protocol keeps its style."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUB = "latentwire_proto/v1/latent_codec_pb2.pyi"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )


def test_the_committed_stubs_are_what_the_protocol_generates() -> None:
    result = run(sys.executable, "proto/generate.py", "--check")
    assert result.returncode == 0, result.stderr


def test_a_stub_that_was_edited_by_hand_is_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    with (tmp_path / "proto" / STUB).open("a", encoding="utf-8") as stub:
        stub.write("\nEDITED: int\n")
    result = run(sys.executable, tmp_path / "proto" / "generate.py", "--check")
    assert result.returncode == 1
    assert STUB in result.stderr
    assert "make proto" in result.stderr


def test_the_protocol_passes_its_linter() -> None:
    # Among its rules (.protolint.yaml): every message, field, enum value and RPC has a comment.
    result = run(Path(sysconfig.get_path("scripts")) / "protolint", "lint", "proto")
    assert result.returncode == 0, result.stdout + result.stderr
