# SPDX-License-Identifier: Apache-2.0
"""The protocols -> what is committed beside them, stubs or a descriptor: `python proto/generate.py [--check]`."""

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
# Stubs of this one would clash with those of its other users in one process.
OPEN_INFERENCE = "latentwire_proto/inference/grpc_service.proto"
DESCRIPTOR = OPEN_INFERENCE.replace(".proto", ".binpb")


def generate(out: Path) -> None:
    """Write what is made of the protocols below the folder `out`; SystemExit where protoc finds fault."""
    _protoc(f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", SOURCE)
    (out / DESCRIPTOR).parent.mkdir(parents=True, exist_ok=True)
    _protoc(f"--descriptor_set_out={out / DESCRIPTOR}", OPEN_INFERENCE)


def drifted() -> list[str]:
    """Return the committed files that differ from what `generate` writes."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = (*STUBS, DESCRIPTOR)
        return [name for name in made if (Path(folder) / name).read_bytes() != (ROOT / name).read_bytes()]


def _protoc(*arguments: str) -> None:
    # google/rpc/status.proto lies beside its generated module, in googleapis-common-protos.
    common_protos = Path(next(iter(google.rpc.__path__))).parents[1]
    includes = [f"-I{folder}" for folder in (ROOT, common_protos, files(grpc_tools) / "_proto")]
    if status := protoc.main(["protoc", *includes, *arguments]):
        raise SystemExit(status)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if stale := drifted():
            sys.exit(f"not what the protocols make: {', '.join(stale)}; run `make proto`")
    else:
        generate(ROOT)
