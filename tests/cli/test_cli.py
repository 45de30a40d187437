# SPDX-License-Identifier: Apache-2.0
"""The command without a server: arguments, files, how it ends, what it loads."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from latentwire_cli import local, main
from latentwire_cli.commands.serve import serve
from latentwire_cli.exit_status import Refusal, end, one_line
from latentwire_cli.files import plan
from latentwire_cli.picture import AMPLIFICATION, GAP, side_by_side
from latentwire_cli.report import Batch, byte_count, make_table, name_cell, print_table
from latentwire_client.errors import Unavailable
from latentwire_client.testing import FakeServer
from latentwire_codec.lat.payload import Provenance, compress_latents
from latentwire_core.extras import install_hint
from latentwire_core.files import write_whole
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_proto import __version__
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.process.ports import Ports

PROGRAM = str(Path(sys.executable).with_name("latentwire"))
COMMANDS = (
    "serve", "encode", "decode", "compress", "decompress", "inspect", "roundtrip", "sample", "morph", "latents-report",
    "edit", "attributes", "train", "draw-faces", "info", "health",
)  # fmt: skip


@pytest.fixture
def nobody() -> str:
    """An address where nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, and nothing on standard output."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# ---------------------------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------------------------


def test_help_of_every_command_loads_nothing_heavy() -> None:
    script = f"""
import sys
from latentwire_cli import main
for command in {COMMANDS!r}:
    assert main([command, "--help"]) == 0
heavy = ("torch", "diffusers", "latentwire_codec", "latentwire_server.app", "starlette", "prometheus_client")
heavy = [name for name in sys.modules if name in heavy]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"latentwire {__version__}\n"


def test_without_a_command_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encod"], "No such command 'encod'"),
        (["encode"], "Missing argument"),
        (["encode", "a.png"], "'--output'"),
        (["encode", "a.png", "-o", "out", "--sizes", "1"], "--sizes"),
        (["encode", "a.png", "-o", "out", "--size", "512"], "WIDTHxHEIGHT"),
        (["encode", "a.png", "-o", "out", "--size", "99999999999x8"], "each side in 1..1048575"),
        (["encode", "a.png", "-o", "out", "--size", "8x1048576"], "each side in 1..1048575"),
        (["encode", "a.png", "-o", "out", "--size", f"{'9' * 5000}x8"], "each side in 1..1048575"),
        (["encode", "a.png", "-o", "out", "--kind", "mean"], "'mean'"),
        (["encode", "a.png", "-o", "out", "--seed", "1"], "only a sample has a seed"),
        (["encode", "a.png", "-o", "out", "--kind", "sample", "--seed", "-1"], "0..2^64-1"),
        (["encode", "a.png", "-o", "out", "--scaled"], "moments are always raw"),
        (["encode", "a.png", "-o", "out", "--timeout", "0"], "--timeout is 0; it must be above 0"),
        (["health", "--timeout", "inf"], "--timeout is inf; it must be above 0 and at most 1000000 seconds"),
        (["info", "--timeout", "nan"], "--timeout is nan; it must be above 0 and at most 1000000 seconds"),
        (["info", "--timeout", "1e12"], "--timeout is 1e+12; it must be above 0 and at most 1000000 seconds"),
        (["compress", "a.png", "-o", "out", "--refine", "-1"], "--refine"),
        (["encode", "a.png", "-o", "out", "--local", "--server", "host:1"], "leave out --server"),
        (["decode", "a.safetensors", "-o", "out", "--quality", "90"], "PNG is lossless"),
        (["decode", "a.safetensors", "-o", "out", "--format", "webp", "--quality", "101"], "101 is not in 1..100"),
        (["compress", "a.png", "-o", "out", "--quality", "best"], "neither lossless, cache"),
        (["compress", "a.png", "-o", "out", "--quality", "-1"], "'-1' is neither"),
        (["compress", "a.png", "-o", "out", "--bpp", "0"], "0 is not a finite number above 0"),
        (["compress", "a.png", "-o", "out", "--bytes", "9", "--psnr", "30"], "give one of them"),
        (["compress", "a.png", "-o", "out", "--quality", "low", "--bpp", "1"], "give one of them"),
        (["decompress", "a.lat", "-o", "out", "--quality", "90"], "PNG is lossless"),
        (["inspect"], "Missing argument"),
        (["serve", "--port", "70000"], "--port is 70000; it must be in 0..65535"),
        (["serve", "--model", "=x"], "[NAME=]SOURCE"),
        (["serve", "--tls-cert", "x.pem"], "--tls-key"),
        (["serve", "--model-memory", "0"], "--model-memory is 0; it must be in 1..16777216"),
        (["serve", "--scale", "sd=1"], "--scale sd=1: there is no model 'sd'; there is f8c4, f8c32"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in error_line(capsys)


class Watched(FakeServer):
    """A server that remembers how long each image is waited for, seconds, and answers with a payload of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float | None] = []

    def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        self.waits_s.append(context.time_remaining())
        payload = compress_latents(np.zeros((4, 1, 1), np.float32), provenance=Provenance(image_size=(8, 8)))
        return pb.EncodeResponse(lat=pb.LatPayloads(payloads=[payload]))


@pytest.mark.parametrize(
    ("arguments", "least_s", "most_s"),
    # gRPC rounds a deadline up: to a second, from 1000 s on to tens of seconds.
    [([], 100, 121), (["--refine", "1"], None, None), (["--refine", "1", "--timeout", "900"], 800, 901)],
)
def test_a_refinement_is_waited_for_as_long_as_it_takes_or_is_said(
    arguments: list[str], least_s: float | None, most_s: float | None, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with Watched() as server:
        target = ["--server", server.target]
        assert main(["compress", str(tmp_path / "a.png"), "-o", str(tmp_path / "lat"), *target, *arguments]) == 0
    (wait_s,) = server.waits_s
    if least_s is None or most_s is None:
        # What gRPC says where there is no deadline differs from version to version.
        assert wait_s is None or wait_s > 10**6
    else:
        assert wait_s is not None
        assert least_s < wait_s <= most_s


def test_serve_has_a_flag_for_every_field_of_the_configuration() -> None:
    options = signature(serve).parameters.keys() - {"log_format", "scale", "shift", "latent_space"}
    assert options == {field.name for field in fields(ServerConfig)}


def test_serve_states_the_defaults_that_the_configuration_has() -> None:
    parameters = signature(serve).parameters
    unset = {
        "metrics_port": "off",
        "http_port": "off",
        "max_delay_ms": "5 on a GPU, 0 on a CPU",
        "model_memory_mib": "no limit",
        "activation_memory_mib": "half of the device's memory",
    }
    for field in fields(ServerConfig):
        stated = re.search(r"\[default: (.*)\]\[/dim\]", parameters[field.name].annotation.__metadata__[0].help)
        if field.name == "models":
            expected: str | None = " ".join(model.source for model in ServerConfig.models)
        elif field.default is None:
            expected = unset.get(field.name)
        elif isinstance(field.default, bool):
            expected = "on" if field.default else "off"
        else:
            expected = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert (stated[1] if stated else None) == expected, field.name


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """The configurations that `serve` would run, instead of running them."""
    configs: list[ServerConfig] = []

    def run(config: ServerConfig, on_ready: object) -> None:
        configs.append(config)

    monkeypatch.setattr("latentwire_server.app.run", run)
    return configs


def test_serve_takes_its_configuration_from_flags(served: list[ServerConfig]) -> None:
    flags = "--model a=f8c4 --model b=/x --port 1 --max-delay-ms 2.5 --token t --tls-cert c --tls-key k --device cpu"
    assert main(["serve", *flags.split()]) == 0
    (config,) = served
    assert [(model.name, model.source) for model in config.models] == [("a", "f8c4"), ("b", "/x")]
    assert (config.port, config.max_delay_ms, config.token, config.device) == (1, 2.5, "t", "cpu")
    assert (config.tls_cert, config.tls_key) == (Path("c"), Path("k"))
    assert config.max_queue == ServerConfig.max_queue


def test_serve_takes_what_is_said_of_models_from_flags_over_variables(
    served: list[ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTWIRE_SCALE", "a=1 b=2,3")
    monkeypatch.setenv("LATENTWIRE_SHIFT", "a=4")
    monkeypatch.setenv("LATENTWIRE_MODEL_MEMORY", "500")
    assert main(["serve", "--model", "a=/x", "--model", "b=/y", "--shift", "b=5", "--latent-space", "a=sd1"]) == 0
    (config,) = served
    assert config.models == (
        ModelSource("a", "/x", scale=(1.0,), latent_space="sd1"),
        ModelSource("b", "/y", scale=(2.0, 3.0), shift=(5.0,)),
    )
    assert config.model_memory_mib == 500


def test_serve_takes_its_configuration_from_variables_where_no_flag_is_given(
    served: list[ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTWIRE_PORT", "7")
    monkeypatch.setenv("LATENTWIRE_MAX_QUEUE", "9")
    monkeypatch.setenv("LATENTWIRE_TOKEN", "secret")
    monkeypatch.setenv("LATENTWIRE_MODEL", "a=f8c4 b=/x")
    assert main(["serve", "--port", "8"]) == 0
    (config,) = served
    assert (config.port, config.max_queue, config.token, len(config.models)) == (8, 9, "secret", 2)


@pytest.mark.parametrize(
    ("flags", "variable", "expected"),
    [([], None, True), (["--no-oip"], None, False), ([], "false", False), (["--oip"], "false", True)],
)
def test_serve_answers_the_open_inference_protocol_unless_it_is_switched_off(
    served: list[ServerConfig],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    variable: str | None,
    expected: bool,
) -> None:
    if variable is not None:
        monkeypatch.setenv("LATENTWIRE_OIP", variable)
    assert main(["serve", *flags]) == 0
    assert served[0].oip is expected


def test_the_ready_line_names_models_address_and_metrics(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: ServerConfig, on_ready: Callable[[Ports], None]) -> None:
        on_ready(Ports(4321, 0, (8765,)))

    monkeypatch.setattr("latentwire_server.app.run", run)
    flags = ["--model", "f8c4", "--model", "b=/x", "--host", "::1", "--port", "0", "--metrics-port", "0"]
    assert main(["serve", *flags]) == 0
    assert capsys.readouterr().out == "serving f8c4,b on [::1]:4321, metrics on 127.0.0.1:8765\n"


@pytest.mark.parametrize(
    ("flags", "devices"),
    [(["--workers", "2"], ("auto", "auto")), (["--device", "cuda:0,cuda:1"], ("cuda:0", "cuda:1"))],
)
def test_several_workers_are_started_by_a_parent_whose_status_is_the_commands(
    flags: list[str],
    devices: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_workers(config: ServerConfig, log_format: str, on_ready: Callable[[Ports], None]) -> int:
        assert (config.worker_devices, log_format) == (devices, "json")
        on_ready(Ports(4321, 80, (8765, 8766)))
        return 1

    monkeypatch.setattr("latentwire_server.process.workers.run_workers", run_workers)
    assert main(["serve", *flags, "--log-format", "json"]) == 1
    line = "serving f8c4,f8c32 on 127.0.0.1:4321, HTTP on 127.0.0.1:80, metrics on 127.0.0.1:8765, 127.0.0.1:8766\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["serve"], "server"),
        (["encode", "a.png", "-o", "out", "--local"], "server"),
        (["roundtrip", "a.png", "-o", "out"], "codec"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    arguments: list[str],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    assert main(arguments) == 2
    assert error_line(capsys) == f"error: this needs the {extra} extra: {install_hint(extra)}\n"


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images, other files and hidden ones."""
    folder = tmp_path / "photos"
    for name in ("b.PNG", "a.jpg", "sub/a.webp", "notes.txt", ".hidden.png", ".cache/c.png"):
        write_whole(folder / name, b"")
    return folder


def places(inputs: list[Path], folder: Path) -> list[tuple[str, str]]:
    jobs = plan(inputs, IMAGE_SUFFIXES, folder, ".safetensors", overwrite=False)
    return [(job.source.name, str(job.target.relative_to(folder))) for job in jobs]


def test_a_folder_is_looked_through_and_its_structure_kept(photos: Path, tmp_path: Path) -> None:
    assert places([photos], tmp_path / "out") == [
        ("a.jpg", "a.safetensors"),
        ("b.PNG", "b.safetensors"),
        ("a.webp", "sub/a.safetensors"),
    ]


def test_a_file_goes_directly_into_the_output_whatever_its_suffix(tmp_path: Path) -> None:
    assert places([tmp_path / "x" / "scan.v2.dat"], tmp_path / "out") == [("scan.v2.dat", "scan.v2.safetensors")]


def test_the_output_folder_is_not_looked_through(photos: Path) -> None:
    write_whole(photos / "out" / "old.png", b"")
    assert len(places([photos], photos / "out")) == 3


def test_a_file_that_is_named_twice_is_done_once(photos: Path, tmp_path: Path) -> None:
    assert len(places([photos, photos / "a.jpg", photos / "." / "a.jpg"], tmp_path / "out")) == 3


def test_two_inputs_for_one_output_are_refused_before_any_work(photos: Path, tmp_path: Path) -> None:
    write_whole(photos / "a.png", b"")
    with pytest.raises(Refusal, match=r"a\.jpg and .*a\.png would both be written to .*a\.safetensors; rename one"):
        places([photos], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_file_is_kept_unless_told_otherwise(photos: Path, tmp_path: Path) -> None:
    write_whole(tmp_path / "out" / "a.safetensors", b"old")
    with pytest.raises(Refusal, match=r"a\.safetensors exists; --overwrite replaces it"):
        places([photos], tmp_path / "out")
    assert len(plan([photos], IMAGE_SUFFIXES, tmp_path / "out", ".safetensors", overwrite=True)) == 3


def test_what_was_written_before_is_left_out_and_how_much_that_is_is_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def left(*written: str) -> tuple[int, str]:
        for name in written:
            write_whole(out / f"{name}.safetensors", b"old")
        jobs = plan([photos], IMAGE_SUFFIXES, out, ".safetensors", overwrite=False, difference=lambda path: "")
        return len(jobs), capsys.readouterr().err

    others = f"note: left out of {photos}: 2 hidden, 1 of other kinds (.txt)\n"
    assert left() == (3, others)
    assert left("a") == (2, f"{others}note: 1 of 3 files were written to {out} before; they are left out\n")
    assert left("b", "sub/a") == (0, f"{others}note: 3 of 3 files were written to {out} before; they are left out\n")


def test_a_folder_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "holds no file of the kinds looked for (.avif .bmp" in error_line(capsys)


def test_an_output_that_cannot_be_a_folder_is_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = photos / "notes.txt"
    assert main(["encode", str(photos / "a.jpg"), "-o", str(output)]) == 2
    assert error_line(capsys) == f"error: {output} is a file; -o names the folder to write to\n"


# ---------------------------------------------------------------------------------------------------------------------
# Ends
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["info"], ["health"], ["encode", "a.png", "-o", "out"], ["decode", "a.safetensors", "-o", "out"]],
)
def test_an_unreachable_server_is_one_line_and_status_2(
    arguments: list[str], nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTWIRE_SERVER", nobody)
    Image.new("RGB", (8, 8)).save("a.png")
    from latentwire_client import Latents

    Latents(np.zeros((1, 4, 1, 1), np.float32)).save("a.safetensors")
    assert main(arguments) == 2
    line = error_line(capsys)
    assert f"no server answers at {nobody}" in line
    assert "`latentwire serve`" in line


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C, and again after a minute, as gRPC swallows one once in a long while; return what was written."""
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=60)
    process.send_signal(signal.SIGABRT)  # faulthandler tells what it waits for
    return process.communicate()


def test_an_interrupted_command_ends_with_one_line_and_130(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        env = os.environ | {"PYTHONFAULTHANDLER": "1"}
        process = subprocess.Popen([PROGRAM, "info", "--server", address], env=env, stdout=-1, stderr=-1, text=True)
        connection, _ = silent.accept()
        with connection, connection.makefile("rb") as sent:
            # The signal is for a command that waits for its answer: so not before its request has come.
            sent.read(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            connection.sendall(b"\0\0\0\x04\0\0\0\0\0")  # an empty SETTINGS frame, which the client waits for
            while (frame := sent.read(9))[3] != 1:  # HEADERS
                sent.read(int.from_bytes(frame[:3], "big"))
            out, err = interrupted(process)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_a_closed_pipe_leaves_no_trace() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run([PROGRAM, "--version"], stdout=writing, stderr=-1, text=True, check=False)
    os.close(writing)
    assert (process.returncode, process.stderr) == (1, "")


def test_a_bug_keeps_its_traceback() -> None:
    def command() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        end(command)


def test_failures_are_listed_at_the_end_and_decide_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        with Batch("trying", 2) as batch:
            batch.failed(Path("a.png"), ValueError("no\nimage"))
            batch.failed(Path("b.png"), FileNotFoundError(2, "No such file or directory", "b.png"))
        batch.end()

    with pytest.raises(RuntimeError) as ended:
        command()
    assert getattr(ended.value, "exit_code", None) == 1
    assert capsys.readouterr().err == "error: a.png: no image\nerror: b.png: No such file or directory\n"


def test_what_would_befall_every_item_ends_the_run_at_once() -> None:
    import grpc

    with Batch("trying", 2) as batch, pytest.raises(Unavailable):
        batch.failed(Path("a.png"), Unavailable(grpc.StatusCode.UNAVAILABLE, "gone"))


# ---------------------------------------------------------------------------------------------------------------------
# What is shown
# ---------------------------------------------------------------------------------------------------------------------


def test_an_error_cannot_control_the_terminal() -> None:
    assert one_line("a\n\tb\x1b[2Jc") == "a b?[2Jc"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (32768, "32.8 kB"), (786432, "786 kB"), (999_600, "1.0 MB"),
     (12_582_912, "12.6 MB"), (5 * 10**12, "5000 GB")],
)  # fmt: skip
def test_a_number_of_bytes_is_short(count: int, text: str) -> None:
    assert byte_count(count) == text


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_name_is_wrapped_and_is_no_markup_but_numbers_stay_whole(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table: Table = make_table("numbers", "image", [f"column {index}" for index in range(5)])
    table.add_row(name_cell("[bold]" + "x" * 100), *["12345.678"] * 5)
    print_table(table)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= int(columns)
    assert "[bold]" in out
    assert out.count("12345.678") == 5


def test_the_picture_shows_both_images_and_their_amplified_difference(tmp_path: Path) -> None:
    original = np.full((40, 300, 3), 100, np.uint8)
    reconstruction = original.copy()
    reconstruction[:, 150:] += 10
    path = tmp_path / "picture.png"
    path.write_bytes(side_by_side(original, reconstruction, ("one", "two", "three")))
    with Image.open(path) as image:
        picture = np.asarray(image)
    assert picture.shape[1] == 3 * 300 + 4 * GAP
    panels = [picture[-40 - GAP : -GAP, GAP + index * (300 + GAP) :][:, :300] for index in range(3)]
    np.testing.assert_array_equal(panels[0], original)
    np.testing.assert_array_equal(panels[1], reconstruction)
    assert (panels[2][:, :150] == 128).all()
    assert (panels[2][:, 150:] == 128 + 10 * AMPLIFICATION).all()


def test_a_small_image_gets_room_for_its_captions() -> None:
    import io

    tiny = np.zeros((1, 1, 3), np.uint8)
    picture = Image.open(io.BytesIO(side_by_side(tiny, tiny, ("original 1x1", "reconstruction", "difference"))))
    assert picture.width > 200


def test_a_title_is_printed_whatever_standard_output_can_hold(tmp_path: Path) -> None:
    (tmp_path / "\u00e9.lat").write_bytes(compress_latents(np.zeros((2, 3, 4), np.float32)))
    shown = subprocess.run(
        [PROGRAM, "inspect", "\u00e9.lat"], cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0].rstrip() == "?.lat"


def test_json_is_ascii_so_that_any_file_name_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from latentwire_cli.report import print_json

    print_json({"path": os.fsdecode(b"\xff.png")})
    assert json.loads(capsys.readouterr().out) == {"path": "\udcff.png"}
