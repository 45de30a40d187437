# SPDX-License-Identifier: Apache-2.0
"""The journal of a training run: what is recorded is read back, whatever ended the process that wrote it."""

import csv
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentwire_core.files import write_whole
from latentwire_train.data.folder import Problem
from latentwire_train.record.curves import MAX_POINTS, draw_curves
from latentwire_train.record.journal import Journal
from latentwire_train.record.log import JournalError, Row, read_log
from latentwire_train.record.pictures import sample_grid

WRITER = """
import sys
from pathlib import Path
from latentwire_train.record.journal import Journal

journal = Journal(Path(sys.argv[1]))
step = 0
while True:
    step += 1
    journal.record(step, {"train/l1": step / 7})
    if step == 5:
        print("ready", flush=True)
"""


def events(folder: Path, name: str) -> list[tuple[int, float]]:
    """The scalars that TensorBoard would show."""
    accumulator = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def figures(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(row.step, dict(row.figures)) for row in read_log(folder / "log.csv")]


# ---------------------------------------------------------------------------------------------------------------------
# log.csv
# ---------------------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["train/l1", "train/total", "held_out/psnr", 'a "b", c\nd', "é"]),
            st.floats(allow_nan=False),
        ),
        max_size=6,
    )
)
def test_what_is_recorded_is_read_back_equal_whatever_the_names_and_numbers(
    rows: list[dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentwire_train.record.journal._open_events", lambda folder, step: None)
    (tmp_path / "log.csv").unlink(missing_ok=True)
    journal = Journal(tmp_path)
    for step, row in enumerate(rows, 1):
        journal.record(step, row)
    assert figures(tmp_path) == list(enumerate(rows, 1))


def test_the_log_is_a_table_with_a_column_for_each_name_and_empty_cells_where_nothing_was_measured(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    journal.record(10, {"train/l1": 0.5})
    journal.record(10, {"held_out/psnr": 20.25})
    journal.record(20, {"train/l1": 0.25, "learning_rate": 1e-4})
    journal.close()
    with (tmp_path / "log.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "seconds", "train/l1", "held_out/psnr", "learning_rate"]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["10", "0.5", "", ""],
        ["10", "", "20.25", ""],
        ["20", "0.25", "", "0.0001"],
    ]


def test_numbers_that_are_not_finite_are_recorded_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record(1, {"train/l1": math.nan, "train/kl": math.inf})
    journal.close()
    ((_, row),) = figures(tmp_path)
    assert math.isnan(row["train/l1"])
    assert row["train/kl"] == math.inf


def test_a_resumed_run_drops_what_came_after_its_checkpoint_and_goes_on_below(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (10, 20, 30, 40):
        journal.record(step, {"train/l1": float(step)})
    journal.record(40, {"held_out/psnr": 1.0})
    journal.close()
    journal = Journal(tmp_path, resume_step=20)
    journal.record(30, {"train/l1": 300.0})
    journal.close()
    assert figures(tmp_path) == [(10, {"train/l1": 10.0}), (20, {"train/l1": 20.0}), (30, {"train/l1": 300.0})]


def test_a_run_that_begins_again_from_the_start_keeps_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal(tmp_path)
        journal.record(0, {"held_out/psnr": 1.0})
        journal.record(10, {"train/l1": 2.0})
        journal.close()
    assert figures(tmp_path) == [(0, {"held_out/psnr": 1.0}), (10, {"train/l1": 2.0})]


@pytest.mark.parametrize("torn", [b"30,1", b"30,1.5,0.1", b"\0\0\0\0\n", b"30,1.5,0.x\n40,2.0,0.25\n", b"30\n", b"\n"])
def test_a_torn_end_is_dropped(torn: bytes, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (10, 20):
        journal.record(step, {"train/l1": float(step)})
    journal.close()
    with (tmp_path / "log.csv").open("ab") as file:
        file.write(torn)
    journal = Journal(tmp_path, resume_step=1000)
    journal.record(1010, {"train/l1": 1.0})
    journal.close()
    assert [step for step, _ in figures(tmp_path)] == [10, 20, 1010]


def test_seconds_go_on_from_the_last_row_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,seconds,train/l1\n10,1000.0,0.5\n20,2000.0,0.5\n")
    journal = Journal(tmp_path, resume_step=10)
    journal.record(20, {"train/l1": 0.25})
    journal.close()
    assert [row.seconds >= 1000 for row in read_log(tmp_path / "log.csv")] == [True, True]
    assert read_log(tmp_path / "log.csv")[1].seconds < 2000


def test_a_file_that_is_no_log_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("name,age\nx,1\n")
    with pytest.raises(JournalError, match=r"log\.csv is not the log of a training run; move it away"):
        Journal(tmp_path)
    assert (tmp_path / "log.csv").read_text() == "name,age\nx,1\n"


def test_a_process_that_is_killed_while_it_records_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    journal = Journal(tmp_path, resume_step=4)
    journal.record(5, {"train/l1": -1.0})
    journal.close()
    expected = [(step, {"train/l1": step / 7}) for step in range(1, 5)]
    assert figures(tmp_path) == [*expected, (5, {"train/l1": -1.0})]


# ---------------------------------------------------------------------------------------------------------------------
# TensorBoard, pictures, curves
# ---------------------------------------------------------------------------------------------------------------------


def test_tensorboard_shows_the_figures_and_after_resuming_not_those_that_were_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (10, 20, 30, 40):
        journal.record(step, {"train/l1": float(step)})
    journal.close()
    journal = Journal(tmp_path, resume_step=20)
    journal.record(30, {"train/l1": 300.0})
    journal.close()
    assert events(tmp_path, "train/l1") == [(10, 10.0), (20, 20.0), (30, 300.0)]


def test_tensorboard_shows_what_comes_after_a_torn_event(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (10, 20):
        journal.record(step, {"train/l1": float(step)})
    journal.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    journal = Journal(tmp_path, resume_step=10)
    journal.record(20, {"train/l1": 200.0})
    journal.close()
    assert events(tmp_path, "train/l1") == [(10, 10.0), (20, 200.0)]


def test_a_picture_is_shown_in_tensorboard_as_it_is_on_disk(tmp_path: Path) -> None:
    sample_grid(torch.randint(256, (2, 3, 100, 100), dtype=torch.uint8), tmp_path / "grid.png")
    journal = Journal(tmp_path)
    journal.picture(7, "samples", tmp_path / "grid.png")
    journal.close()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (shown,) = accumulator.Images("samples")
    with Image.open(tmp_path / "grid.png") as image:
        assert (shown.step, shown.width, shown.height) == (7, *image.size)


def test_without_tensorboard_and_matplotlib_it_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "latentwire_train.record.curves", None)
    with caplog.at_level(logging.WARNING, "latentwire.train"):
        journal = Journal(tmp_path)
        for step in (1, 2):
            journal.record(step, {"train/l1": 1.0})
            journal.picture(step, "samples", tmp_path / "none.png")
            assert journal.draw_curves() is None
        journal.close()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "no TensorBoard events are written",
        "no curves are drawn",
    ]
    assert len(figures(tmp_path)) == 2


def test_training_modules_load_neither_tensorboard_nor_matplotlib_nor_diffusers() -> None:
    script = """
import sys
from latentwire_train.record import card
from latentwire_core import files
from latentwire_train.record import journal
from latentwire_train.record import observer
from latentwire_train.record import pictures
print(sorted({"tensorboard", "matplotlib", "diffusers", "accelerate", "rich"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"


def training_row(step: int) -> Row:
    decay = 1 / step
    figures = {"train/total": 0.05 + decay, "train/l1": 0.04 + decay, "train/adversarial": -decay, "train/kl": decay}
    return Row(step, step / 10, figures | {"train/psnr": 27 - decay, "learning_rate": 1e-3, "images_per_s": 80.0})


def test_the_curves_are_drawn_from_the_log_to_a_png_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.draw_curves() is None
    for step in range(1, 4):
        journal.record(step, training_row(step).figures)
    journal.record(3, {"held_out/psnr": 26.0, "held_out/loss": 0.06, "held_out/kl": 0.5})
    path = journal.draw_curves()
    journal.close()
    assert path == tmp_path / "curves.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1000


def size(rows: list[Row]) -> tuple[int, int]:
    import io

    picture = draw_curves(rows)
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as image:
        return image.size


def test_curves_have_room_for_what_was_measured_only() -> None:
    whole = size([training_row(step) for step in (1, 2)])
    assert size([Row(1, 1.0, {"train/psnr": 20.0})])[1] < whole[1] / 2


def test_curves_are_drawn_of_one_row_of_very_many_and_of_numbers_that_are_not_finite() -> None:
    assert size([training_row(1)])
    assert size([training_row(step) for step in range(1, 5 * MAX_POINTS + 2)])
    assert size([Row(1, 1.0, {"train/l1": math.nan}), Row(2, 2.0, {"train/l1": 0.0}), Row(3, 3.0, {"train/l1": 0.5})])
    assert draw_curves([Row(1, 1.0, {"train/l1": math.nan, "something else": 1.0})]) is None


def test_skipped_files_are_named_line_by_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.skipped([])
    assert not (tmp_path / "skipped.txt").exists()
    journal.skipped([Problem("a.jpg", "is 8x8"), Problem(os.fsdecode(b"\xff\n.jpg"), "is cut")])
    journal.close()
    assert (tmp_path / "skipped.txt").read_bytes() == b"a.jpg: is 8x8\n\xff .jpg: is cut\n"


# ---------------------------------------------------------------------------------------------------------------------
# Whole files
# ---------------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_take_its_place_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
