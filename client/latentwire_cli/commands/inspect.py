# SPDX-License-Identifier: Apache-2.0
"""`latentwire inspect`: `.lat` files -> what their headers say, and whether their checksums match."""

from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rich.table import Table

from latentwire_cli.exit_status import one_line
from latentwire_cli.files import Json, PayloadFiles, found
from latentwire_cli.report import Batch, pairs_table, print_line, print_table
from latentwire_core.formats import PAYLOAD_SUFFIXES

if TYPE_CHECKING:
    from latentwire_core.container import Header

# channels whose numbers fit on one line
MOST_CHANNELS = 8
KINDS = {"QUANTIZED": "quantized", "FLOAT16": "float16, bit for bit"}


def inspect(files: PayloadFiles, as_json: Json = False) -> None:
    """Show what `.lat` files hold: image, latents, model, bytes by section, and whether their checksums are right.

    It needs no server and no model; with the codec extra it also shows the bits of each channel.
    A damaged file is reported, with the contents of its header if the header is whole.
    """
    from latentwire_core.container import read_header, unpack
    from latentwire_core.errors import BitstreamError

    results = []
    paths = found(files, PAYLOAD_SUFFIXES)
    with Batch("reading", len(paths)) as batch:
        for path in paths:
            try:
                payload = path.read_bytes()
            except OSError as error:
                batch.failed(path, error)
                continue
            result: dict[str, Any] = {"payload": str(path), "bytes": len(payload), "fault": None, "problem": None}
            try:
                result |= _header(read_header(payload), len(payload))
                result |= _sections(asdict(unpack(payload)[1]), len(payload))
                result["channel_bits"] = _channel_bits(payload)
            except BitstreamError as error:
                batch.failed(path, error)
                result |= {"fault": type(error).__name__, "problem": one_line(str(error))}
            else:
                batch.done()
            results.append(result)

    def show() -> None:
        for result in results:
            print_table(_table(result))
            print_line("")

    batch.report(results, as_json, show)


def _header(header: "Header", count: int) -> dict[str, Any]:
    from latentwire_codec.lat.quantizer import Steps

    height, width = header.image_size
    channels, rows, columns = header.shape
    return {
        "kind": KINDS[header.kind.name],
        "model": header.model,
        "latent_space": header.latent_space,
        "weights_digest": header.weights_digest,
        "width": width,
        "height": height,
        "latent_shape": list(header.shape),
        "bits_per_pixel": 8 * count / (width * height) if width and height else None,
        "bits_per_latent": 8 * count / (channels * rows * columns),
        "table_id": f"{header.table_id:08x}",
        "steps": Steps(header.numerators, header.exponent).sizes.tolist(),
    }


def _sections(sections: dict[str, bytes], count: int) -> dict[str, Any]:
    lengths = {name: len(section) for name, section in sections.items()}
    return {"sections": {"header_and_checksums": count - sum(lengths.values()), **lengths}}


def _channel_bits(payload: bytes) -> list[float] | None:
    """Return the bits of each channel; None where the coder is not installed."""
    if not find_spec("numba"):
        return None
    from latentwire_codec.lat.trace import channel_bits

    bits: list[float] = channel_bits(payload).tolist()
    return bits


def _table(result: dict[str, Any]) -> Table:
    rows = {"bytes": f"{result['bytes']:,}"}
    if "kind" in result:
        size = f"{result['width']}x{result['height']}" if result["width"] else "all that is decoded"
        rows |= {
            "image": size,
            "latents": "x".join(map(str, result["latent_shape"])) + f", {result['kind']}",
            "steps": _range(result["steps"]),
            "model": result["model"] or "unknown",
            "latent space": result["latent_space"] or "unnamed or unknown",
            "weights": result["weights_digest"] or "unknown",
            "tables": result["table_id"],
            "bits per pixel": "-" if result["bits_per_pixel"] is None else f"{result['bits_per_pixel']:.4f}",
            "bits per latent": f"{result['bits_per_latent']:.4f}",
        }
    if result.get("channel_bits") is not None:
        count = result["latent_shape"][1] * result["latent_shape"][2]
        numbers = [bits / count for bits in result["channel_bits"]]
        few = len(numbers) <= MOST_CHANNELS
        rows["bits per latent of channels"] = (
            ", ".join(f"{number:.2f}" for number in numbers) if few else _range(numbers)
        )
    for name, length in result.get("sections", {}).items():
        rows[f"bytes of {name.replace('_', ' ')}"] = f"{length:,}"
    rows["state"] = "whole, checksums right" if result["fault"] is None else f"fault: {result['fault']}"
    return pairs_table(result["payload"], rows.items())


def _range(numbers: list[float]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:.4g}" if least == most else f"{least:.4g} to {most:.4g}"
