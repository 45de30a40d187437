# SPDX-License-Identifier: Apache-2.0
"""Figures and weights of a training run -> its folder.

    RUN/run.json        the configuration, the data's digest, versions: what the run is
        log.csv         every figure, and the same as events in tensorboard/
        curves.png      the figures drawn
        pictures/       held-out images and their reconstructions; prior samples of a vector VAE
        best/  last/    the averaged weights in diffusers' format, each with its model card
        state.pt        what going on needs

Whatever is written takes the place of what was there whole or not at all.
"""

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.runtime.precision import DTYPES
from latentwire_train.config import Architecture, TrainingConfig
from latentwire_train.data.folder import ImageSource, Problem, Subset
from latentwire_train.data.source import TrainingData, measuring_framing
from latentwire_train.data.views import View
from latentwire_train.devices import draw_on
from latentwire_train.networks import Network
from latentwire_train.record.card import CardFacts, model_card
from latentwire_train.record.evaluation import SHOWN, Evaluation
from latentwire_train.record.export import measure_latents, save_network
from latentwire_train.record.journal import Journal
from latentwire_train.record.pictures import reconstruction_grid, sample_grid

MEASURED_IMAGES = 256
"""Training images whose latents give the scaling factor."""


class Record:
    """The folder of a run, at work.

    Args:
        folder: of the run.
        config: of the run.
        data: its images.
        resume_step: steps that are done already; what was recorded of later ones is dropped.
    """

    def __init__(self, folder: Path, config: TrainingConfig, data: TrainingData, resume_step: int) -> None:
        self.held_out = View(data.held_out, measuring_framing(config.data))
        # The stream names damaged images already.
        self._measured = View(
            _first(data.train, MEASURED_IMAGES), measuring_framing(config.data), report=lambda problem: None
        )
        self._folder, self._config, self._data = folder, config, data
        self._journal = Journal(folder, resume_step)
        self._problems = list(data.problems)
        self._journal.skipped(self._problems)

    def problem(self, problem: Problem) -> None:
        """Add a file that turned out to be damaged to those that were skipped."""
        self._problems.append(problem)
        self._journal.skipped(self._problems)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Log what was measured in training."""
        self._journal.record(step, figures)

    def evaluation(
        self,
        step: int,
        minutes: float,
        network: Network,
        latent_shape: tuple[int, int, int],
        evaluation: Evaluation,
        is_best: bool,
    ) -> None:
        """Log an evaluation, draw its pictures and save the weights that were evaluated."""
        self._journal.record(step, evaluation.figures)
        pictures = self._folder / "pictures"
        pictures.mkdir(exist_ok=True)
        path = pictures / f"reconstructions-{step:07d}.png"
        reconstruction_grid(evaluation.originals, evaluation.reconstructions, path)
        self._journal.picture(step, "reconstructions", path)
        if self._config.model.family is Architecture.VECTOR:
            path = pictures / f"samples-{step:07d}.png"
            sample_grid(_prior_samples(network, latent_shape), path)
            self._journal.picture(step, "samples", path)
        self._journal.draw_curves()
        statistics = measure_latents(network.encoder, self._measured_batches(network))
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
                latent_shape=latent_shape,
                scaling_factor=statistics.scaling_factor,
                latents_mean=statistics.mean,
                latents_std=statistics.std,
                figures=evaluation.figures,
                versions={"python": platform.python_version(), "torch": str(torch.__version__)},
            )
        )
        extra: dict[str, Any] = {"scaling_factor": statistics.scaling_factor, "sample_size": self._config.data.size}
        if self._config.model.latent_space:
            extra["latent_space"] = self._config.model.latent_space
        dtype = DTYPES[self._config.run.saved_precision]
        weights = {name: tensor.to(dtype) for name, tensor in network.module.state_dict().items()}
        for name in ("last", "best") if is_best else ("last",):
            save_network(self._folder / name, network, weights, extra, card)

    def close(self) -> None:
        """Write what is left."""
        self._journal.close()

    def _measured_batches(self, network: Network) -> Iterator[Tensor]:
        device = next(network.module.parameters()).device
        for batch in self._measured.batches(16):
            yield batch.pixels.to(device).float().div_(127.5).sub_(1)


def _first(source: ImageSource, count: int) -> ImageSource:
    return Subset(source, tuple(range(min(count, len(source)))))


@torch.no_grad()
def _prior_samples(network: Network, latent_shape: tuple[int, int, int]) -> Tensor:
    """Return uint8 images (SHOWN,3,H,W) decoded from N(0, I), from the same latents every time."""
    device = next(network.module.parameters()).device
    z = torch.randn((SHOWN, *latent_shape), generator=draw_on(device, 0), device=device)
    return pixels.to_uint8(network.decoder(z).float()).permute(0, 3, 1, 2).cpu()
