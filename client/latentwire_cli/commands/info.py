# SPDX-License-Identifier: Apache-2.0
"""`latentwire info`: a server -> its models and limits."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from latentwire_cli.connection import Connection, connected
from latentwire_cli.files import Json
from latentwire_cli.report import pairs_table, print_json, print_line, print_table
from latentwire_client.info import ModelInfo

# label -> the text for a model, in the order of the table
ROWS: tuple[tuple[str, Callable[[ModelInfo], str]], ...] = (
    ("class", lambda model: model.class_name),
    ("latent space", lambda model: model.latent_space or "unnamed"),
    ("weights", lambda model: model.weights_digest[:12]),
    ("file hash", lambda model: model.file_hash or "none"),
    ("in memory", lambda model: "yes" if model.loaded else "no, loaded when asked for"),
    ("parameters", lambda model: f"{model.parameters:,}"),
    ("pixels per latent side", lambda model: str(model.downsample_factor)),
    ("latent channels", lambda model: str(model.latent_channels)),
    ("log-variance", lambda model: "yes" if model.has_logvar else "no"),
    ("scale", lambda model: _numbers(model.scale)),
    ("shift", lambda model: _numbers(model.shift)),
    ("image size", lambda model: "any" if model.fixed_size is None else "{1}x{0}".format(*model.fixed_size)),
    ("computes in", lambda model: f"{model.dtype} on {model.device}" + (", rewritten" if model.rewrites else "")),
)


@connected("local", "model")
def info(as_json: Json = False, *, connection: Connection) -> None:
    """Show the version, the models and the limits of a server."""
    with connection.open() as client:
        found = client.info()
    if as_json:
        print_json(asdict(found))
        return
    print_line(f"latentwire {found.version} at {client.target}")
    print_line("")
    for model in found.models:
        print_table(pairs_table(f"Model {model.name}", ((label, text(model)) for label, text in ROWS)))
        print_line("")
    limits = found.limits
    counts = (
        ("bytes of a message", limits.max_message_bytes),
        ("pixels along a side", limits.max_image_side),
        ("pixels of an image", limits.max_image_pixels),
        ("images in a request", limits.max_batch_images),
        ("images in the queue", limits.max_queue_images),
        ("items of a stream in flight", limits.stream_window),
        ("iterations of a refinement", limits.max_refinement),
    )
    print_table(pairs_table("Limits", ((label, f"{count:,}") for label, count in counts)))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
