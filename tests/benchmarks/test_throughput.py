# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.throughput`: cases timed in turn, ratios, arithmetic, memory of processes of their own."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from benchmarks.report.networks import BUNDLED, IMAGE_SPREAD, LATENT_SPREAD, Network, prepare, random_autoencoder_kl
from benchmarks.report.pictures import photograph
from benchmarks.report.timing import Spread, speed_up, take_turns
from benchmarks.throughput.__main__ import cases_at, main, parser
from benchmarks.throughput.apart import Footprint, Task, run_apart
from benchmarks.throughput.cases import EAGER, LATENTWIRE, ONNX, OPENVINO, Case, MatrixProduct, operations
from benchmarks.throughput.measuring import CAP_DB, difference
from benchmarks.throughput.summary import BOTH, comparisons
from latentwire_codec.runtime.placement import Placement

MIB = 2**20
WIDTHS = (32, 64)
PEERS = {OPENVINO: ["openvino"], ONNX: ["onnxruntime", "onnx"]}  # engine -> its packages


def missing(engine: str) -> str:
    """Return the first package of an engine that is not installed; empty: all are."""
    return next((package for package in PEERS[engine] if importlib.util.find_spec(package) is None), "")


@pytest.fixture(scope="module")
def record(throughput_run: Path) -> dict[str, Any]:
    """What run.json of a small run holds."""
    found: dict[str, Any] = json.loads((throughput_run / "run.json").read_text())
    return found


def test_every_case_has_a_row_for_each_operation(record: dict[str, Any], tiny_kl: Path) -> None:
    names = {(row["network"], row["case"], row["operation"]) for row in record["rows"]}
    eager, peers = {"eager float32", "eager bfloat16, channels_last"}, {"openvino float32", "openvino bfloat16"}
    peers.add("onnx runtime float32")
    ours = {"latentwire", "latentwire float32", "latentwire bfloat16", "latentwire float32, no rewrites"}
    wanted = {(network, way) for network in (BUNDLED, tiny_kl.name) for way in eager | peers | ours}
    wanted |= {("tiny", way) for way in eager}
    assert names == {(*name, operation) for name in wanted for operation in ("encode", "decode")}
    assert len(record["rows"]) == len(names)


def test_a_half_that_is_emulated_is_left_out_with_the_reason(record: dict[str, Any], throughput_run: Path) -> None:
    emulated = Placement.choose("cpu", "bfloat16").is_emulated
    halves = [row for row in record["rows"] if "bfloat16" in row["case"] and row["engine"] != OPENVINO]
    assert all(("left_out" in row) == emulated for row in halves)
    if emulated:
        assert all("no instructions for bfloat16" in row["left_out"] for row in halves)
        assert "no instructions for bfloat16" in (throughput_run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_computes_the_same_or_is_left_out_where_it_is_not_installed(record: dict[str, Any], engine: str) -> None:
    peers = [row for row in record["rows"] if row["engine"] == engine]
    assert peers
    if package := missing(engine):
        assert all(f"{package} is not installed: pip install 'latentwire[peers]'" in row["left_out"] for row in peers)
    else:
        assert all(row["psnr_db"] > (90 if row["dtype"] == "float32" else 30) for row in peers)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 3, 48, 80)])
@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_takes_images_of_any_size_and_number(engine: str, shape: tuple[int, ...], tiny_kl: Path) -> None:
    if package := missing(engine):
        pytest.skip(f"{package} is not installed: {engine} is untested")
    network = Network("tiny-kl", str(tiny_kl))
    eager, peer = Case(network, EAGER).load("cpu"), Case(network, engine).load("cpu")
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = eager.encode(images)
    assert difference("encode", latents, peer.encode(images)).psnr_db > 90
    assert difference("decode", eager.decode(latents), peer.decode(latents)).psnr_db > 90


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize(
    ("engine", "package"), [(engine, package) for engine, packages in PEERS.items() for package in packages]
)
def test_a_peer_without_its_package_is_left_out_whatever_is_emulated(
    engine: str, package: str, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name == package else object()

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    reason = Case(Network("none", "nowhere"), engine).refusal("cpu", emulated)
    assert reason.startswith(f"{package} is not installed: pip install 'latentwire[peers]'")


def test_the_numbers_of_a_row_fit_each_other(record: dict[str, Any]) -> None:
    for row in record["rows"]:
        if "left_out" in row:
            continue
        assert len(row["seconds"]) == 3
        assert row["median_s"] == sorted(row["seconds"])[1]
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_s"])
        assert row["tflop_per_s"] * row["median_s"] == pytest.approx(row["tflop"])
        rates = record["summary"]["matrix_tflop_per_s"][f"{row['width']}"][row["dtype"]]
        shares = [row["tflop"] / taken / rate for taken, rate in zip(row["seconds"], rates, strict=True)]
        assert row["share_of_matrix_rate"] == pytest.approx(sorted(shares)[1])


def test_latentwire_gives_what_diffusers_gives(record: dict[str, Any]) -> None:
    rows = [row for row in record["rows"] if row["engine"] == LATENTWIRE and "left_out" not in row]
    assert {row["case"] for row in rows} >= {"latentwire", "latentwire float32"}
    for row in rows:
        assert row["largest"] < (1e-4 if row["dtype"] == "float32" else 0.1)
        assert row["psnr_db"] > (100 if row["dtype"] == "float32" else 45)
    assert all(row["largest"] == 0 for row in record["rows"] if row["case"] == "eager float32")


def test_the_bundled_model_is_compared_with_the_others(record: dict[str, Any], tiny_kl: Path) -> None:
    found = {(tuple(each["faster"]), tuple(each["slower"])) for each in record["summary"]["comparisons"]}
    ours = (BUNDLED, LATENTWIRE)
    assert {(ours, (BUNDLED, "eager float32")), (ours, ("tiny", "eager float32"))} <= found
    assert ((tiny_kl.name, LATENTWIRE), ("tiny", "eager float32")) not in found


def test_calls_take_turns_and_quick_ones_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report.timing.SAMPLE_S", 1.0)
    made: list[str] = []

    def call(name: str) -> Callable[[], None]:
        return lambda: made.append(name)

    samples = take_turns({"a": call("a"), "b": call("b")}, {"a": 0.5, "b": 3.0}, rounds=2, limit_s=math.inf)
    assert made == ["a", "a", "b"] * 2
    assert [len(samples[name]) for name in "ab"] == [2, 2]


def test_rounds_end_with_the_time_but_are_three_at_least() -> None:
    begun: list[int] = []
    samples = take_turns({"a": lambda: None}, {"a": 1.0}, rounds=9, limit_s=0.0, step=begun.append)
    assert begun == [1, 2, 3]
    assert len(samples["a"]) == 3


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine slows down fourfold in the last round: the medians' ratio would be 1.
    assert speed_up([2.0, 2.0, 8.0], [1.0, 2.0, 2.0]) == Spread(median=2.0, low=1.0, high=4.0)


def test_comparisons_hold_both_operations_together() -> None:
    def row(network: str, case: str, operation: str, *seconds: float) -> dict[str, Any]:
        return {"network": network, "case": case, "width": 64, "operation": operation, "seconds": list(seconds)}

    rows = [
        row("n", "eager float32", "encode", 2.0, 4.0, 6.0), row("n", "eager float32", "decode", 4.0, 4.0, 6.0),
        row("n", LATENTWIRE, "encode", 1.0, 1.0, 3.0), row("n", LATENTWIRE, "decode", 1.0, 3.0, 3.0),
        {"network": "n", "case": "eager bfloat16", "width": 64, "operation": "encode", "left_out": "slow"},
        row("other", "eager float32", "encode", 1.0), row("other", "eager float32", "decode", 1.0),
    ]  # fmt: skip
    (found,) = comparisons(rows)
    assert (found.faster, found.slower) == (("n", LATENTWIRE), ("n", "eager float32"))
    assert found.times["encode"] == Spread(2.0, 2.0, 4.0)
    assert found.times["decode"] == Spread(2.0, 4 / 3, 4.0)
    assert found.times[BOTH] == Spread(2.0, 2.0, 3.0)


def test_the_arithmetic_of_the_sd_size_network_is_counted(tmp_path: Path) -> None:
    with torch.device("meta"):
        module = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            latent_channels=4,
        )
    module.save_config(tmp_path)
    network = Network("sd", str(tmp_path))
    encode, decode = (operations(network, operation, 512, 512) for operation in ("encode", "decode"))
    assert (round(encode / 1e9), round(decode / 1e9)) == (1117, 2515)
    # The attention at 64x64 alone: scores and their sum over the values, 512 channels, two operations each.
    attention = 2 * 2 * (64 * 64) ** 2 * 512
    halves = operations(network, "decode", 256, 256)
    assert decode - 4 * halves == attention - 4 * attention // 16


def test_the_arithmetic_of_a_product_is_that_of_its_sides() -> None:
    product = MatrixProduct(Placement.choose("cpu", "float32"), side=8)
    product.run()
    assert product.operations == 2 * 8**3


def test_a_random_network_spreads_as_a_trained_one() -> None:
    torch.manual_seed(0)
    network = random_autoencoder_kl(WIDTHS, norm_num_groups=8, layers_per_block=1)
    image = torch.from_numpy(photograph(64, 64)).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1
    with torch.inference_mode():
        latents = network.encode(image).latent_dist.mean
        decoded = network.decode(latents).sample
    assert LATENT_SPREAD / 2 < latents.std() < LATENT_SPREAD * 2
    assert IMAGE_SPREAD / 2 < decoded.std() < IMAGE_SPREAD * 2


def test_a_difference_is_the_largest_and_a_psnr() -> None:
    reference = torch.zeros(1, 3, 2, 2)
    other = reference.clone()
    other[0, 0, 0, 0] = 0.2
    found = difference("decode", reference, other)
    assert found.largest == pytest.approx(0.2)
    assert found.psnr_db == pytest.approx(10 * math.log10(4 / (0.04 / 12)))
    assert difference("decode", reference, reference).psnr_db == CAP_DB
    latents = torch.tensor([-1.0, 9.0])
    assert difference("encode", latents, latents + 1).psnr_db == pytest.approx(20)


def test_a_photograph_of_any_size_is_made_of_the_same_pixels() -> None:
    small, large = photograph(24, 40), photograph(600, 1100)
    assert (small.shape, large.shape) == ((24, 40, 3), (600, 1100, 3))
    assert (large[512:536, 1024:1064] == small).all()


def test_a_size_has_the_cases_of_the_networks_that_want_it(tmp_path: Path, tiny_kl: Path) -> None:
    networks = [prepare(BUNDLED, tmp_path), prepare(str(tiny_kl), tmp_path), Network("sd-size", "nowhere")]
    options = parser().parse_args([])
    assert {case.network.name for case in cases_at(512, networks, options, None)} == {
        BUNDLED, tiny_kl.name, "sd-size",
    }  # fmt: skip
    assert {case.network.name for case in cases_at(1024, networks, options, networks[1])} == {BUNDLED, tiny_kl.name}


def test_a_process_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.throughput.apart.sys.executable", "false")
    case = Case(Network("none", "nowhere"), LATENTWIRE)
    with pytest.raises(
        RuntimeError, match="latentwire float32 at 64x64 ended with 1: it printed nothing; it may have been"
    ):
        run_apart(Task(case, "encode", 64, "cpu", 1))


def test_a_process_of_its_own_gives_memory_time_and_output(tiny_kl: Path, tmp_path: Path) -> None:
    network = Network("tiny-kl", str(tiny_kl))
    case = Case(network, LATENTWIRE, options={"activation_memory_mib": 16})
    footprint = run_apart(Task(case, "decode", 512, "cpu", 1, str(tmp_path / "images.npy")))
    # The output alone is so large; the libraries are in what is idle.
    assert 3 * 512 * 512 * 4 < footprint.above_idle_bytes < 100 * MIB < footprint.idle_bytes
    assert footprint.seconds > 0
    latents = torch.randn((1, 4, 128, 128), generator=torch.Generator().manual_seed(0))
    expected = Case(network, EAGER).load("cpu").decode(latents)
    assert np.abs(np.load(tmp_path / "images.npy") - expected.numpy()).max() < 1e-4


def test_bounded_memory_stands_beside_diffusers(tiny_kl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    footprints = {"eager float32": (400, 4.0, 0.0), "eager float32, tiled": (100, 6.0, 0.5)}
    ours = "latentwire float32, 4 MiB of activations"

    def run(task: Task) -> Footprint:
        if task.operation == "encode" and task.case.label == ours:
            raise RuntimeError("it may have been killed for its memory")
        peak, seconds, value = footprints.get(task.case.label, (80, 5.0, 1e-6))
        np.save(task.output, np.arange(4, dtype=np.float32) / 4 + np.float32(value))
        return Footprint(1000, peak, seconds, "float32")

    monkeypatch.setattr("benchmarks.throughput.apart.run_apart", run)
    main(["--models", str(tiny_kl), "--tiling", "1000", "--activation-memory", "4", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "run.json").read_text())
    assert [row["case"] for row in record["rows"]] == [*footprints, *footprints, ours]
    decoded = [row for row in record["rows"] if row["operation"] == "decode"]
    assert [row["share_of_memory"] for row in decoded] == [1, 0.25, 0.2]
    assert [row["share_of_time"] for row in decoded] == [1, 1.5, 1.25]
    assert [row["seconds_per_megapixel"] for row in decoded] == [4, 6, 5]
    assert [row["largest"] for row in decoded] == [0, 0.5, pytest.approx(1e-6, rel=0.1)]
    assert record["summary"]["failures"] == {f"encode: {ours}": "it may have been killed for its memory"}


def test_a_number_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--repeats", "0"])
    assert "--repeats: it is 0; it must be at least 1" in capsys.readouterr().err


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(SystemExit, match="nothing-of-that-name"):
        main(["--models", "nothing-of-that-name"])
