# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.roundtrip`: what VAEs lose on a folder, side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.report.model import Source
from benchmarks.report.scores import Wanted
from benchmarks.roundtrip.__main__ import main
from benchmarks.roundtrip.losses import measure_model
from latentwire_codec import read_image
from latentwire_codec.metrics import scores
from latentwire_codec.networks.pipeline_vae import AutoencoderVectorVAE


def test_a_run_puts_models_side_by_side(roundtrip_run: Path, photographs: Path) -> None:
    run = json.loads((roundtrip_run / "run.json").read_text())
    assert list(run["summary"]["models"]) == ["f8c4", "wide"]
    summary = run["summary"]["models"]["f8c4"]["scores"]["psnr_db"]
    rows = [row["models"]["f8c4"]["scores"]["psnr_db"] for row in run["rows"]]
    assert summary["mean"] == pytest.approx(np.mean(rows))
    assert (summary["lowest"], summary["highest"], summary["count"]) == (min(rows), max(rows), 2)
    model = Source("f8c4", device="cpu").load()
    image = read_image((photographs / "astronaut.png").read_bytes())
    assert rows[0] == pytest.approx(scores.psnr(image, model.decode(model.encode(image), image)), abs=1e-3)


def test_ratios_are_of_all_bytes_together(roundtrip_run: Path) -> None:
    run = json.loads((roundtrip_run / "run.json").read_text())
    sizes = run["summary"]["models"]["f8c4"]["sizes"]
    rows = [row["models"]["f8c4"] for row in run["rows"]]
    raw = 3 * (163 * 170 + 100 * 130)
    assert sum(row["raw_bytes"] for row in rows) == raw
    assert sizes["float16_ratio"] == pytest.approx(raw / (8 * (21 * 22 + 13 * 17)))
    assert sizes["lat_ratio"] == pytest.approx(raw / sum(row["lat_bytes"] for row in rows))


def test_the_table_on_the_terminal_names_the_worst_image(
    photographs: Path, roundtrip_run: Path, wide_kl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "f8c4", str(wide_kl), "--metrics", "psnr_db", "ssimulacra2", "--worst", "1"]
    main([str(photographs), "--out", str(roundtrip_run), *arguments])
    printed = capsys.readouterr().out
    run = json.loads((roundtrip_run / "run.json").read_text())
    worst = min(run["rows"], key=lambda row: float(row["models"]["f8c4"]["scores"]["psnr_db"]))
    assert worst["file"] in printed
    assert "f8c4 (float32) on 2 images of" in printed
    html = (roundtrip_run / "report.html").read_text(encoding="utf-8")
    assert html.count('class="crop"') == 5


def test_an_interrupted_run_says_how_it_goes_on(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.roundtrip.losses.measure", interrupt)
    with pytest.raises(SystemExit, match="the same command goes on from there"):
        main([str(photographs), "--out", str(tmp_path), "--metrics", "psnr_db"])


def test_an_image_is_framed_to_the_only_size_of_a_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderVectorVAE(image_size=16, latent_dim=8, width=4).save_pretrained(tmp_path)
    model = Source(str(tmp_path), device="cpu").load()
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    found = measure_model(model, Wanted(("psnr_db",)).scorer(), image)
    assert (found["width"], found["height"], found["raw_bytes"]) == (16, 16, 3 * 16 * 16)
    assert found["float16_bytes"] == 2 * 8
