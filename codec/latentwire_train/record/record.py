# SPDX-License-Identifier: Apache-2.0
"""Figures and weights of a training run -> its folder.

    RUN/run.json        the configuration, the data's digest, versions
        log.csv         every figure; tensorboard/ has the same figures as events
        curves.png      the figures drawn
        skipped.txt     the files that cannot be used, and why
        pictures/       held-out images and their reconstructions; prior samples of a vector VAE
        best/  last/    the averaged weights in diffusers' format, each with its model card
        state.pt        what an interrupted run needs to go on

A file is replaced whole or not at all.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from latentwire_codec.images.geometry import Pixels
from latentwire_codec.images.pixels import to_uint8
from latentwire_codec.images.writing import write_image
from latentwire_codec.runtime.placement import DTYPES
from latentwire_core.files import write_whole
from latentwire_core.formats import ImageFormat
from latentwire_train.config import Architecture, TrainingConfig
from latentwire_train.data.folder import Problem, Subset
from latentwire_train.data.source import TrainingData, measuring_framing
from latentwire_train.data.views import View
from latentwire_train.devices import draw_on
from latentwire_train.networks import Network
from latentwire_train.record.card import CardFacts, model_card
from latentwire_train.record.curves import draw_curves
from latentwire_train.record.evaluation import SHOWN, Evaluation
from latentwire_train.record.export import measure_latents, save_network
from latentwire_train.record.log import Log, read_log
from latentwire_train.record.pictures import reconstruction_grid, sample_grid

LOG_FILE = "log.csv"
MEASURED_IMAGES = 256
"""The most training images whose latents give the scaling factor."""


class Record:
    """Writes the folder of a run, which must exist; records of steps after `resume_step` are dropped.

    Raises:
        DataError: the folder's log.csv is not the log of a training run.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, config: TrainingConfig, data: TrainingData, resume_step: int) -> None:
        self.held_out = View(data.held_out, measuring_framing(config.data))
        first = Subset(data.train, tuple(range(min(MEASURED_IMAGES, len(data.train)))))
        # The stream reports damaged images already.
        self._measured = View(first, measuring_framing(config.data), report=lambda problem: None)
        self._folder, self._config, self._data = folder, config, data
        self._log = Log(folder / LOG_FILE, resume_step)
        # TensorBoard hides events of steps from `purge_step` on.
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else 0)
        self._problems = list(data.problems)
        self._write_problems()

    def problem(self, problem: Problem) -> None:
        """Add a file that turned out to be damaged to the skipped files."""
        self._problems.append(problem)
        self._write_problems()

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Record figures of a step."""
        self._log.append(step, figures)
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)
        # Without it a killed run would have gaps in its events where its log has rows.
        self._events.flush()

    def evaluation(
        self, step: int, minutes: float, network: Network, shape: tuple[int, int, int], found: Evaluation, is_best: bool
    ) -> None:
        """Record an evaluation, draw pictures and curves, and save the weights that were evaluated."""
        self._picture(step, "reconstructions", reconstruction_grid(found.originals, found.reconstructions))
        if self._config.model.family is Architecture.VECTOR:
            self._picture(step, "samples", sample_grid(_prior_samples(network, shape)))
        self.figures(step, found.figures)
        if (curves := draw_curves(read_log(self._folder / LOG_FILE))) is not None:
            write_whole(self._folder / "curves.png", curves)
        device = next(network.module.parameters()).device
        latents = measure_latents(network.encoder, (batch.images(device) for batch in self._measured.batches(16)))
        card = model_card(
            CardFacts(
                config=self._config,
                steps=step,
                minutes=minutes,
                images=len(self._data.train),
                held_out=len(self._data.held_out),
                skipped=len(self._problems),
                data_name=self._data.name,
                data_digest=self._data.digest,
                parameters=network.parameters,
                latent_shape=shape,
                latents=latents,
                figures=found.figures,
                versions={"python": platform.python_version(), "torch": str(torch.__version__)},
            )
        )
        extra: dict[str, Any] = {"scaling_factor": latents.scaling_factor, "sample_size": self._config.data.size}
        if self._config.model.latent_space:
            extra["latent_space"] = self._config.model.latent_space
        dtype = DTYPES[self._config.run.saved_precision]
        weights = {name: tensor.to(dtype) for name, tensor in network.module.state_dict().items()}
        for name in ("last", "best") if is_best else ("last",):
            save_network(self._folder / name, network, weights, extra, card)

    def close(self) -> None:
        """Finish the file of events."""
        self._events.close()

    def _picture(self, step: int, name: str, pixels: Pixels) -> None:
        write_whole(self._folder / "pictures" / f"{name}-{step:07d}.png", write_image(pixels, ImageFormat.PNG))
        self._events.add_image(name, pixels, step, dataformats="HWC")

    def _write_problems(self) -> None:
        if self._problems:
            text = "".join(f"{' '.join(str(problem).split())}\n" for problem in self._problems)
            write_whole(self._folder / "skipped.txt", text.encode(errors="surrogateescape"))


@torch.no_grad()
def _prior_samples(network: Network, latent_shape: tuple[int, int, int]) -> Tensor:
    """Return uint8 images (SHOWN,3,H,W) decoded from N(0, I), from the same latents every time."""
    device = next(network.module.parameters()).device
    z = torch.randn((SHOWN, *latent_shape), generator=draw_on(device, 0), device=device)
    return to_uint8(network.decoder(z).float()).permute(0, 3, 1, 2).cpu()
