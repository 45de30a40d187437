# SPDX-License-Identifier: Apache-2.0
"""latent_codec.proto -> its committed Python stubs: `python proto/generate.py [--check]`."""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import google.rpc
import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parent
SOURCE = "latentwire_proto/v1/latent_codec.proto"
STUBS = tuple(SOURCE.replace(".proto", suffix) for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py"))


def generate(out: Path) -> None:
    """Write the stubs of `SOURCE` below the folder `out`; SystemExit where protoc finds fault."""
    # google/rpc/status.proto lies beside its generated module, in googleapis-common-protos.
    common_protos = Path(next(iter(google.rpc.__path__))).parents[1]
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{common_protos}",
            f"-I{files(grpc_tools) / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            SOURCE,
        ]
    )
    if status:
        raise SystemExit(status)


def drifted() -> list[str]:
    """Return the committed stubs that differ from what `generate` writes."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return [stub for stub in STUBS if (Path(folder) / stub).read_bytes() != (ROOT / stub).read_bytes()]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if stale := drifted():
            sys.exit(f"stubs differ from {SOURCE}: {', '.join(stale)}; run `make proto`")
    else:
        generate(ROOT)
