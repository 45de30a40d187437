# SPDX-License-Identifier: Apache-2.0
"""Unmodified tritonclient, in a process of its own, gets the same results as our own client."""

import asyncio
import io
import pickle
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from PIL import Image

from latentwire_client import Client, Latents
from latentwire_proto import __version__
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import Pixels

Triton = Callable[..., Any]

PROGRAM = Path(__file__).with_name("triton_client.py")
LATENTS = np.random.default_rng(5).standard_normal((2, 4, 4, 6)).astype(np.float32)


def talk(target: str) -> Iterator[Triton]:
    """Start tritonclient, give a function that calls its methods, and end it."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def call(method: str, **options: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump((method, options), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)

        yield call
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


@pytest.fixture(scope="module")
def triton(target: str) -> Iterator[Triton]:
    yield from talk(target)


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[Client]:
    with Client(target, model="tiny") as client:
        yield client


@pytest.fixture(scope="module")
def crops(astronaut: Pixels) -> Pixels:
    """Two images of 24x16."""
    return np.stack([astronaut[100:116, 200:224], astronaut[300:316, 100:124]])


@pytest.fixture(scope="module")
def floats(crops: Pixels) -> np.ndarray:
    """The same images as floats that every datatype holds exactly."""
    return (crops.transpose(0, 3, 1, 2) // 4 / 32 - 1).astype(np.float32)


def infer(triton: Triton, model: str, *inputs: tuple[str, str, np.ndarray], **options: Any) -> Any:
    answer = triton("infer", model=model, inputs=inputs, **options)
    assert isinstance(answer, dict), answer
    return answer


def latents(values: np.ndarray = LATENTS, **fields: Any) -> Latents:
    return Latents(values=values, **fields)


def png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files(*contents: bytes) -> np.ndarray:
    """Files as tritonclient takes them: (B,1), one each."""
    return np.array(contents, dtype=np.object_).reshape(-1, 1)


# Metadata


def test_the_server_and_each_of_its_models_are_live_and_ready(triton: Triton) -> None:
    assert triton("is_server_live") is True
    assert triton("is_server_ready") is True
    assert triton("is_model_ready", model_name="tiny.decode") is True
    assert triton("is_model_ready", model_name="tiny.decode", model_version="1") is True


@pytest.mark.parametrize("name", ["tiny", "tiny.paint", "/etc/passwd", ".encode", ""])
def test_another_model_is_not_ready_and_not_found(triton: Triton, name: str) -> None:
    assert triton("is_model_ready", model_name=name) is False
    status, message = triton("get_model_metadata", model_name=name)
    assert status == "StatusCode.NOT_FOUND"
    assert repr(name) in message
    assert "f8c4.encode, f8c4.decode, tiny.encode, tiny.decode" in message


def test_another_version_is_not_ready_and_not_found(triton: Triton) -> None:
    assert triton("is_model_ready", model_name="tiny.decode", model_version="2") is False
    status, message = triton("get_model_config", model_name="tiny.decode", model_version="2")
    assert (status, "'2'" in message) == ("StatusCode.NOT_FOUND", True)


def test_the_server_says_what_it_is(triton: Triton) -> None:
    metadata = triton("get_server_metadata", as_json=True)
    assert (metadata["name"], metadata["version"]) == ("latentwire", __version__)
    assert metadata["extensions"] == ["model_configuration", "parameters", "statistics"]


def test_metadata_and_configuration_tell_the_same_of_the_tensors(triton: Triton) -> None:
    images = [("IMAGE", "UINT8", [-1, -1, -1, 3]), ("IMAGE_FILE", "BYTES", [-1, 1])]
    latents = [("LATENTS", "FP32", [-1, 4, -1, -1]), ("LOGVAR", "FP32", [-1, 4, -1, -1])]
    data_types = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}
    for name, inputs, outputs in (("tiny.encode", images, latents), ("tiny.decode", latents[:1], images)):
        metadata = triton("get_model_metadata", model_name=name, as_json=True)
        config = triton("get_model_config", model_name=name, as_json=True)["config"]
        assert (metadata["name"], metadata["versions"], metadata["platform"]) == (name, ["1"], "latentwire")
        assert (config["name"], config["backend"], config["max_batch_size"]) == (name, "latentwire", 64)
        for here, there, wanted in (("inputs", "input", inputs), ("outputs", "output", outputs)):
            told = [(t["name"], t["datatype"], [int(side) for side in t["shape"]]) for t in metadata[here]]
            assert told == wanted
            # The batch's axis is max_batch_size there.
            set_up = [(t["name"], t["data_type"], [-1, *(int(side) for side in t["dims"])]) for t in config[there]]
            assert set_up == [(name, data_types[datatype], shape) for name, datatype, shape in wanted]
        assert [t.get("optional", False) for t in config["input"]] == [len(inputs) > 1] * len(inputs)


def test_the_configuration_tells_the_identities_and_the_scaling(triton: Triton, client: Client) -> None:
    (model,) = [model for model in client.info().models if model.name == "f8c4"]
    config = triton("get_model_config", model_name="f8c4.encode", as_json=True)["config"]
    parameters = {name: value.get("string_value", "") for name, value in config["parameters"].items()}
    assert parameters["latent_space"] == model.latent_space
    assert parameters["weights_digest"] == model.weights_digest
    assert parameters["downsample_factor"] == "8"
    assert float(parameters["scale"].split(",")[0]) == model.scale[0]
    assert config["instance_group"] == [{"name": "f8c4.encode", "count": 1, "kind": "KIND_CPU"}]


# Inference


def test_pixels_become_the_latents_that_our_client_gets(triton: Triton, client: Client, crops: Pixels) -> None:
    answer = infer(triton, "tiny.encode", ("IMAGE", "UINT8", crops), request_id="my-id")
    wanted = client.encode(crops, dtype="float32")
    assert np.array_equal(answer["arrays"]["LATENTS"], wanted.values)
    assert answer["datatypes"] == {"LATENTS": "FP32"}
    assert (answer["model"], answer["id"]) == (("tiny.encode", "1"), "my-id")
    assert answer["parameters"] == {
        "height": 16,
        "width": 24,
        "scale": "raw",
        "latent_space": "",
        "weights_digest": wanted.weights_digest,
    }


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16"])
def test_floats_of_each_datatype_become_the_same_latents(
    triton: Triton, client: Client, floats: np.ndarray, datatype: str
) -> None:
    sent = floats.astype(np.float16) if datatype == "FP16" else floats
    answer = infer(triton, "tiny.encode", ("IMAGE", datatype, sent))
    assert np.array_equal(answer["arrays"]["LATENTS"], client.encode(floats, dtype="float32").values)


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", "float16"), ("BF16", "bfloat16")])
def test_latents_come_in_the_datatype_that_is_asked_for(
    triton: Triton, client: Client, crops: Pixels, datatype: str, dtype: str
) -> None:
    answer = infer(triton, "tiny.encode", ("IMAGE", "UINT8", crops), parameters={"dtype": datatype})
    assert answer["datatypes"] == {"LATENTS": datatype}
    assert np.array_equal(answer["arrays"]["LATENTS"], client.encode(crops, dtype=dtype).values)


def test_moments_come_in_the_order_in_which_they_are_named(triton: Triton, client: Client, crops: Pixels) -> None:
    answer = infer(triton, "tiny.encode", ("IMAGE", "UINT8", crops), outputs=["LOGVAR", "LATENTS"])
    wanted = client.encode(crops, kind="moments", dtype="float32")
    assert wanted.logvar is not None
    assert list(answer["arrays"]) == ["LOGVAR", "LATENTS"]
    assert np.array_equal(answer["arrays"]["LATENTS"], wanted.values)
    assert np.array_equal(answer["arrays"]["LOGVAR"], wanted.logvar)


def test_a_sample_has_the_seed_for_the_first_image_and_the_next_for_the_next(
    triton: Triton, client: Client, crops: Pixels
) -> None:
    parameters = {"kind": "sample", "seed": 41, "scale": "scaled"}
    answer = infer(triton, "tiny.encode", ("IMAGE", "UINT8", crops), parameters=parameters)
    wanted = client.encode(crops, kind="sample", seeds=[41, 42], scaled=True, dtype="float32")
    assert np.array_equal(answer["arrays"]["LATENTS"], wanted.values)
    assert answer["parameters"]["scale"] == "scaled"


def test_image_files_of_any_size_become_latents_and_come_back_in_that_size(
    triton: Triton, client: Client, astronaut: Pixels
) -> None:
    photos = [astronaut[:33, 50:71], astronaut[100:133, 150:171]]
    answer = infer(triton, "tiny.encode", ("IMAGE_FILE", "BYTES", files(*map(png, photos))))
    wanted = [client.encode(png(photo), dtype="float32") for photo in photos]
    values = answer["arrays"]["LATENTS"]
    assert np.array_equal(values, np.concatenate([one.values for one in wanted]))
    assert (answer["parameters"]["height"], answer["parameters"]["width"]) == (33, 21)

    back = infer(triton, "tiny.decode", ("LATENTS", "FP32", values), parameters=answer["parameters"])
    assert back["arrays"]["IMAGE"].shape == (2, 33, 21, 3)
    assert np.array_equal(back["arrays"]["IMAGE"][1], client.decode_array(wanted[1])[0])


def test_image_files_are_framed_to_the_size_that_is_asked_for(
    triton: Triton, client: Client, astronaut: Pixels
) -> None:
    photos = [png(astronaut[:40, :50]), png(astronaut[100:200, 100:180])]
    parameters = {"height": 24, "width": 32}
    answer = infer(triton, "tiny.encode", ("IMAGE_FILE", "BYTES", files(*photos)), parameters=parameters)
    wanted = [client.encode(photo, size=(24, 32), dtype="float32").values for photo in photos]
    assert answer["arrays"]["LATENTS"].shape == (2, 4, 6, 8)
    assert np.array_equal(answer["arrays"]["LATENTS"], np.concatenate(wanted))


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16"])
@pytest.mark.parametrize("scale", ["raw", "scaled"])
def test_latents_of_each_datatype_become_the_same_pixels(
    triton: Triton, client: Client, datatype: str, scale: str
) -> None:
    values = np.round(LATENTS * 16) / 16
    sent = values.astype(np.float16) if datatype == "FP16" else values
    answer = infer(triton, "tiny.decode", ("LATENTS", datatype, sent), parameters={"scale": scale})
    wanted = client.decode_array(latents(values, scaled=scale == "scaled"))
    assert answer["datatypes"] == {"IMAGE": "UINT8"}
    assert np.array_equal(answer["arrays"]["IMAGE"], wanted)


@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", "float32"), ("FP16", "float16"), ("BF16", "bfloat16")])
def test_images_come_in_the_datatype_that_is_asked_for(
    triton: Triton, client: Client, datatype: str, dtype: str
) -> None:
    parameters = {"dtype": datatype}
    answer = infer(triton, "tiny.decode", ("LATENTS", "FP32", LATENTS), outputs=["IMAGE"], parameters=parameters)
    assert answer["datatypes"] == {"IMAGE": datatype}
    assert np.array_equal(answer["arrays"]["IMAGE"], client.decode_array(latents(), dtype=dtype))


@pytest.mark.parametrize("parameters", [{}, {"format": "jpeg", "quality": 40}, {"format": "webp"}, {"format": "avif"}])
def test_image_files_come_in_the_format_that_is_asked_for(
    triton: Triton, client: Client, parameters: dict[str, Any]
) -> None:
    answer = infer(triton, "tiny.decode", ("LATENTS", "FP32", LATENTS), outputs=["IMAGE_FILE"], parameters=parameters)
    wanted = client.decode_files(
        latents(), image_format=parameters.get("format", "png"), quality=parameters.get("quality")
    )
    assert answer["datatypes"] == {"IMAGE_FILE": "BYTES"}
    assert answer["arrays"]["IMAGE_FILE"].shape == (2, 1)
    assert answer["arrays"]["IMAGE_FILE"][:, 0].tolist() == wanted


# A fault -> the model, its inputs, the rest of the request, the status, and the words that the message must have.
PIXELS = ("IMAGE", "UINT8", np.zeros((1, 8, 8, 3), np.uint8))
ZEROS = ("LATENTS", "FP32", np.zeros((1, 4, 4, 4), np.float32))
INVALID = "StatusCode.INVALID_ARGUMENT"
BAD: dict[str, tuple[str, list[Any], dict[str, Any], str, list[str]]] = {
    "no input": ("tiny.encode", [], {}, INVALID, ["IMAGE or IMAGE_FILE"]),
    "two inputs": ("tiny.encode", [PIXELS, PIXELS], {}, INVALID, ["exactly one"]),
    "an input of another name": (
        "tiny.encode", [("INPUT0", "UINT8", PIXELS[2])], {}, INVALID, ["INPUT0", "IMAGE or IMAGE_FILE"],
    ),
    "another datatype": (
        "tiny.decode", [("LATENTS", "FP64", np.zeros((1, 4, 4, 4)))], {}, INVALID, ["'FP64'", "FP32, FP16, BF16"],
    ),
    "latents of uint8": (
        "tiny.decode", [("LATENTS", "UINT8", np.zeros((1, 4, 4, 4), np.uint8))], {}, INVALID, ["FP32, FP16, BF16"],
    ),
    "pixels of the wrong layout": (
        "tiny.encode", [("IMAGE", "UINT8", np.zeros((1, 3, 8, 8), np.uint8))], {}, INVALID,
        ["(1, 3, 8, 8)", "(B,H,W,3)"],
    ),
    "floats beyond the range": (
        "tiny.encode", [("IMAGE", "FP32", np.full((1, 3, 8, 8), 200, np.float32))], {}, INVALID, ["200", "[-1, 1]"],
    ),
    "pixels of an odd size": (
        "tiny.encode", [("IMAGE", "UINT8", np.zeros((1, 9, 8, 3), np.uint8))], {}, INVALID, ["8x9", "multiple of 4"],
    ),
    "latents of other channels": (
        "tiny.decode", [("LATENTS", "FP32", np.zeros((1, 16, 4, 4), np.float32))], {}, INVALID, ["(1, 16, 4, 4)"],
    ),
    "latents with NaN": (
        "tiny.decode", [("LATENTS", "FP32", np.full((1, 4, 4, 4), np.nan, np.float32))], {}, INVALID, ["64", "NaN"],
    ),
    "a file that is no image": (
        "tiny.encode", [("IMAGE_FILE", "BYTES", files(b"hello"))], {}, INVALID, ["5 bytes", "PNG"],
    ),
    "an empty file": ("tiny.encode", [("IMAGE_FILE", "BYTES", files(b""))], {}, INVALID, ["0 bytes"]),
    "files of two sizes": (
        "tiny.encode",
        [("IMAGE_FILE", "BYTES", files(png(np.zeros((8, 8, 3), np.uint8)), png(np.zeros((8, 12, 3), np.uint8))))],
        {}, INVALID, ["12x8", "8x8", "height and width"],
    ),
    "a size for pixels": ("tiny.encode", [PIXELS], {"parameters": {"height": 8, "width": 8}}, INVALID, ["raw images"]),
    "half a size": ("tiny.decode", [ZEROS], {"parameters": {"height": 16}}, INVALID, ["width 0", "give both"]),
    "a size that the latents cannot hold": (
        "tiny.decode", [ZEROS], {"parameters": {"height": 99, "width": 16}}, INVALID, ["99", "13 to 16"],
    ),
    "an unknown parameter": (
        "tiny.encode", [PIXELS], {"parameters": {"scaling": "raw"}}, INVALID, ["'scaling'", "scale, kind, seed"],
    ),
    "an unknown parameter of a long name": (
        "tiny.encode", [PIXELS], {"parameters": {"p" * 20_000: 1}}, INVALID, ["'pp"],
    ),
    "a parameter of the other model": ("tiny.encode", [PIXELS], {"parameters": {"format": "png"}}, INVALID, ["format"]),
    "a parameter of another type": (
        "tiny.encode", [PIXELS], {"parameters": {"seed": "7"}}, INVALID, ["'7'", "whole number"],
    ),
    "a switch for a number": ("tiny.encode", [PIXELS], {"parameters": {"seed": True}}, INVALID, ["True"]),
    "an unknown word": (
        "tiny.encode", [PIXELS], {"parameters": {"kind": "mean"}}, INVALID, ["'mean'", "mode or sample"],
    ),
    "a priority": ("tiny.encode", [PIXELS], {"priority": 1}, INVALID, ["'priority'"]),
    "a sequence": ("tiny.encode", [PIXELS], {"sequence_id": 5, "sequence_start": True}, INVALID, ["'sequence_"]),
    "a sample without a seed": ("tiny.encode", [PIXELS], {"parameters": {"kind": "sample"}}, INVALID, ["no seed"]),
    "a seed without a sample": ("tiny.encode", [PIXELS], {"parameters": {"seed": 5}}, INVALID, ["seed is 5", "sample"]),
    "scaled moments": (
        "tiny.encode", [PIXELS], {"parameters": {"scale": "scaled"}, "outputs": ["LOGVAR"]}, INVALID, ["raw"],
    ),
    "an unknown output": ("tiny.encode", [PIXELS], {"outputs": ["IMAGE"]}, INVALID, ["'IMAGE'", "LATENTS and LOGVAR"]),
    "one image in two forms": (
        "tiny.decode", [ZEROS], {"outputs": ["IMAGE", "IMAGE_FILE"]}, INVALID, ["one of them"],
    ),
    "a format for pixels": ("tiny.decode", [ZEROS], {"parameters": {"format": "png"}}, INVALID, ["IMAGE_FILE"]),
    "a quality for a PNG": (
        "tiny.decode", [ZEROS], {"parameters": {"quality": 50}, "outputs": ["IMAGE_FILE"]}, INVALID, ["lossless"],
    ),
    "a quality of 101": (
        "tiny.decode", [ZEROS], {"parameters": {"format": "jpeg", "quality": 101}, "outputs": ["IMAGE_FILE"]},
        INVALID, ["101", "1..100"],
    ),
    "latents of another space": (
        "f8c4.decode", [ZEROS], {"parameters": {"latent_space": "sd1"}}, "StatusCode.FAILED_PRECONDITION", ["'sd1'"],
    ),
    "too many images": (
        "tiny.encode", [("IMAGE", "UINT8", np.zeros((65, 4, 4, 3), np.uint8))], {},
        "StatusCode.RESOURCE_EXHAUSTED", ["65 images", "--max-batch"],
    ),
    "too many files": (
        "tiny.encode", [("IMAGE_FILE", "BYTES", files(*[b"x"] * 65))], {},
        "StatusCode.RESOURCE_EXHAUSTED", ["65 images", "--max-batch"],
    ),
    "a timeout that passes": ("tiny.encode", [PIXELS], {"timeout": 1}, "StatusCode.DEADLINE_EXCEEDED", ["deadline"]),
    "a negative timeout": ("tiny.encode", [PIXELS], {"timeout": -1}, INVALID, ["timeout is -1"]),
    "an unknown model": ("sdxl.encode", [PIXELS], {}, "StatusCode.NOT_FOUND", ["sdxl", "tiny.encode"]),
    "another version": ("tiny.encode", [PIXELS], {"model_version": "7"}, "StatusCode.NOT_FOUND", ["'7'"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_has_the_status_of_the_table_and_says_what_is_wrong(triton: Triton, what: str) -> None:
    model, inputs, options, status, words = BAD[what]
    answer = triton("infer", model=model, inputs=inputs, **options)
    assert not isinstance(answer, dict), answer
    assert answer[0] == status, answer
    assert [word for word in words if word not in answer[1]] == [], answer


@pytest.mark.parametrize(
    "method", ["get_model_repository_index", "get_system_shared_memory_status", "get_log_settings"]
)
def test_what_is_not_served_is_unimplemented(triton: Triton, method: str) -> None:
    assert triton(method)[0] == "StatusCode.UNIMPLEMENTED"


def test_latents_without_their_batch_are_told_from_too_many(triton: Triton) -> None:
    bare = np.zeros((4, 100, 4), np.float32)
    for array in (bare, bare.transpose(1, 0, 2).copy()):
        status, message = triton("infer", model="tiny.decode", inputs=[("LATENTS", "FP32", array)])
        assert (status, "(B, 4, h, w) is needed" in message) == (INVALID, True)


# Statistics


@pytest.fixture
def fresh(tiny_kl: Path) -> Iterator[Server]:
    """A server that has done nothing yet, and asks for a token."""
    config = ServerConfig(
        models=(ModelSource("tiny", str(tiny_kl)),), port=0, metrics_port=0, token="open sesame", max_message_mib=1
    )
    with background(config) as server:
        yield server


def test_probes_need_no_token_and_statistics_count_what_every_client_asked(
    fresh: Server, crops: Pixels, floats: np.ndarray
) -> None:
    target, headers = f"127.0.0.1:{fresh.port}", {"authorization": "Bearer open sesame"}
    for triton in talk(target):
        assert triton("is_server_live") is True
        assert triton("is_server_ready") is True
        assert triton("is_model_ready", model_name="tiny.encode") is True
        assert triton("get_server_metadata")[0] == "StatusCode.UNAUTHENTICATED"
        assert triton("infer", model="tiny.encode", inputs=[])[0] == "StatusCode.UNAUTHENTICATED"

        infer(triton, "tiny.encode", ("IMAGE", "UINT8", crops), headers=headers)
        infer(triton, "tiny.encode", ("IMAGE", "FP32", floats), headers=headers)
        with Client(target, token="open sesame") as client:
            client.encode(crops[0])
            client.decode(client.encode(crops[1]))
        for array in (
            np.zeros((1, 9, 8, 3), np.uint8),
            np.zeros((1, 9, 8), np.uint8),
        ):  # the first fails in the engine, the second at the door
            assert (
                triton("infer", model="tiny.encode", inputs=[("IMAGE", "UINT8", array)], headers=headers)[0] == INVALID
            )
        stats = triton("get_inference_statistics", as_json=True, headers=headers)["model_stats"]
        one = triton("get_inference_statistics", model_name="tiny.decode", as_json=True, headers=headers)["model_stats"]
    assert [stat["name"] for stat in stats] == ["tiny.encode", "tiny.decode"]
    assert one == stats[1:]
    for stat, answered, images, failed in ((stats[0], 4, 6, 2), (stats[1], 1, 1, 0)):
        counts = {name: int(total.get("count", 0)) for name, total in stat["inference_stats"].items()}
        times = {name: int(total.get("ns", 0)) for name, total in stat["inference_stats"].items()}
        assert counts == {"fail": failed} | dict.fromkeys(
            ("success", "queue", "compute_input", "compute_infer", "compute_output"), answered
        )
        assert sum(times.values()) - times["success"] - times["fail"] <= times["success"]
        assert times["compute_infer"] > 0
        # On a CPU images run one by one.
        assert (int(stat["inference_count"]), int(stat["execution_count"])) == (images, images)
        assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in stat["batch_stats"]] == [
            ("1", str(images))
        ]
        assert int(stat["last_inference"]) > 1_700_000_000_000  # milliseconds since 1970
    page_url = f"http://127.0.0.1:{fresh.metrics_port}/metrics"
    with urllib.request.urlopen(urllib.request.Request(page_url, headers=headers)) as page:
        lines = page.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['latentwire_requests_total{code="OK",method="ModelInfer"}']) == 2
    assert float(values['latentwire_requests_total{code="INVALID_ARGUMENT",method="ModelInfer"}']) == 2
    assert float(values['latentwire_batch_images_sum{operation="encode"}']) == 6


async def test_a_request_that_is_no_job_counts_as_failed_by_whatever_protocol_it_came(tiny_kl: Path) -> None:
    server = Server(ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, http_port=0))
    await server.start()
    statistics = server.metrics.statistics
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = LatentCodecServiceStub(channel)
        for request, call in ((pb.EncodeRequest(), stub.Encode), (pb.DecodeRequest(model="tiny"), stub.Decode)):
            with pytest.raises(grpc.aio.AioRpcError, match=r"there (is|are) no"):
                await call(request)
        stream = stub.EncodeStream(iter([pb.EncodeStreamRequest(id=1)]))
        assert (await stream.read()).error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert await stream.code() is grpc.StatusCode.OK
    for path in ("encode?scaling_factor=x", "decode?scaling_factor=x"):
        answer = await asyncio.to_thread(requests.post, f"http://127.0.0.1:{server.http_port}/{path}")
        assert answer.status_code == 400
    await server.stop()
    failed = {operation: statistics.of("tiny", operation).fail.count for operation in ("encode", "decode")}
    assert failed == {"encode": 3, "decode": 2}


def test_files_that_are_larger_than_they_look_are_refused_together(fresh: Server) -> None:
    flat = png(np.zeros((400, 400, 3), np.uint8))
    for triton in talk(f"127.0.0.1:{fresh.port}"):
        status, message = triton(
            "infer",
            model="tiny.encode",
            inputs=[("IMAGE_FILE", "BYTES", files(flat, flat, flat))],
            headers={"authorization": "Bearer open sesame"},
        )
    assert status == "StatusCode.RESOURCE_EXHAUSTED"
    assert "480000 pixels" in message
