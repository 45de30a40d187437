# SPDX-License-Identifier: Apache-2.0
"""A configuration and a folder of images -> a folder with a trained VAE. `train` is the way in.

Step n is a function of n and of the weights before it: its samples, its noise and (with a budget in steps) its learning
rate are keyed by n. So a killed run goes on from its last checkpoint to the weights of an uninterrupted run.
"""

import copy
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from latentwire_core.draws import Draws
from latentwire_core.errors import NonFiniteError
from latentwire_train.compiling import compile_checked
from latentwire_train.config import AutoencoderKind, ConfigError, Precision, TrainingConfig
from latentwire_train.data.cache import ImageCache
from latentwire_train.data.folder import Problem
from latentwire_train.data.source import TrainingData, measuring_framing, open_data, training_framing
from latentwire_train.data.stream import SampleStream
from latentwire_train.data.views import View
from latentwire_train.devices import Devices, draw_on, find_devices
from latentwire_train.loss.adversary import Adversary
from latentwire_train.loss.objective import Objective, Outcome
from latentwire_train.loss.rate import RateObjective, quantization_logvar
from latentwire_train.loss.variational import VariationalObjective
from latentwire_train.networks import build_network, pin_logvar
from latentwire_train.optimizers import build_optimizers
from latentwire_train.record.evaluation import evaluate
from latentwire_train.record.observer import Observer, Plan, Result
from latentwire_train.record.record import Record
from latentwire_train.state import describe_run, load_state, open_run, save_state

_NOISE = 5  # a purpose of `Draws`

BEGIN_WITH = 1024
"""The most training images, spread over all, to which the closed-form parts of a new network are fitted."""


def train(config: TrainingConfig, data: str | Path, folder: Path, observer: Observer) -> Result:
    """Train a VAE, or go on with a run that was interrupted.

    Args:
        config: the configuration.
        data: the path or the URL of the images; see `latentwire_data.source`.
        folder: the folder of the run; `record.py` describes its files.
        observer: is told the events of the run.

    Returns:
        The result. SIGINT and SIGTERM end a run of one process early, after a checkpoint.

    Raises:
        DataError: the data cannot be used, or the folder holds another run.
        ConfigError: the configuration does not fit the network, `model.init` or the number of processes, or no
            reconstruction term has a weight.
        ModelError: the device, `model.init` or LPIPS's weights cannot be used.
        NonFiniteError: the gradient is not finite.
        OSError: the folder cannot be written.
    """
    devices = find_devices(config.run.device)
    opened = open_data(data, config.data)
    if devices.rank == 0:
        open_run(folder, describe_run(config, opened.digest, devices.ranks))
    devices.wait()
    return Training(config, opened, folder, observer, devices).run()


class Training:
    """A run, opened at its last checkpoint; `run` goes on from there.

    Raises what `train` raises.
    """

    def __init__(
        self, config: TrainingConfig, data: TrainingData, folder: Path, observer: Observer, devices: Devices
    ) -> None:
        schedule, device = config.schedule, devices.device
        if schedule.batch_size % devices.ranks:
            raise ConfigError(f"schedule.batch_size is {schedule.batch_size}; {devices.ranks} processes must share it")
        self._config, self._devices, self._observer, self._data = config, devices, observer, data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.seed)
            self._network = build_network(config.model, config.data.size)
            adversary = Adversary(config.loss, schedule) if config.loss.adversarial else None
        if config.loss.weights.rate:
            # The posterior says how wide the noise is that the decoder learns to bear.
            pin_logvar(self._network, quantization_logvar(config.loss.steps))
        self._shape = self._network.latent_shape(config.data.size)
        state = load_state(folder, device)
        if state is None and not config.model.init:
            self._begin()
        self._format = torch.channels_last if config.run.channels_last else torch.contiguous_format
        self._network.module.to(device=device, memory_format=self._format)  # type: ignore[call-overload]
        self._averaged = copy.deepcopy(self._network)
        self._averaged.module.eval().requires_grad_(False)
        autocast = torch.bfloat16 if config.run.precision is Precision.BFLOAT16 else None
        self._objective = self._make_objective(autocast).to(device)
        self._optimizers = build_optimizers(self._network.module, schedule)
        self._adversary = adversary.to(devices) if adversary else None

        self._step, self._minutes = 0, 0.0
        self._best: dict[str, float] = {}
        self._restore(state)
        self._record = Record(folder, config, data, self._step) if devices.rank == 0 else None
        self._folder = folder

    def run(self) -> Result:
        """Train until the budget is used or a signal comes; return the result."""
        config, schedule, devices = self._config, self._config.schedule, self._devices
        if devices.rank == 0:
            plan = Plan(
                folder=self._folder,
                config=config,
                images=len(self._data.train),
                held_out=len(self._data.held_out),
                problems=self._data.problems,
                parameters=self._network.parameters,
                device=str(devices.device) if devices.ranks == 1 else f"{devices.ranks} x {devices.device.type}",
                first_step=self._step,
                best=self._best,
                left_out=self._data.left_out,
            )
            self._observer.started(plan)
        batch = schedule.batch_size // devices.ranks
        stream = SampleStream(
            ImageCache(self._data.train, config.data.cache_mib << 20),
            training_framing(config.data),
            seed=schedule.seed,
            max_bad_share=config.data.max_bad_share,
            report=self._report,
        )
        batches = stream.batches(
            batch,
            start=self._step * schedule.batch_size,
            rank=devices.rank,
            ranks=devices.ranks,
            workers=config.data.workers,
            pin_memory=devices.device.type == "cuda",
        )
        objective = self._objective
        if config.run.compile:
            shape = torch.Size((2, 3, config.data.size, config.data.size))
            objective = compile_checked(objective, shape, devices.device)
        shared = devices.share(objective)
        sums: dict[str, Tensor] = {}
        since, counted = time.monotonic(), 0
        with _signals() as stopped:
            while (progress := self._progress()) < 1 and not (stopped and devices.ranks == 1):
                started = time.monotonic()
                rate = schedule.learning_rate_at(self._step, progress)
                for name, part in self._take_step(shared, next(batches).images(devices.device), rate).items():
                    sums[name] = sums.get(name, torch.zeros_like(part)) + part
                self._step += 1
                counted += 1
                self._minutes += (time.monotonic() - started) / 60
                if self._step % config.run.log_every == 0:
                    speed = counted * schedule.batch_size / (time.monotonic() - since)
                    self._log(sums, counted, {"learning_rate": rate, "images_per_s": speed})
                    sums, since, counted = {}, time.monotonic(), 0
                aside = time.monotonic()
                if self._step % config.run.evaluate_every == 0:
                    self._evaluate()
                if self._step % config.run.save_every == 0:
                    self._save()
                since += time.monotonic() - aside
        ended = progress >= 1
        if ended and self._step % config.run.evaluate_every:
            self._evaluate()
        self._save()
        result = Result(self._folder, self._step, self._minutes, dict(self._best), 0 if ended else stopped[0])
        if self._record is not None:
            self._record.close()
            self._observer.ended(result)
        return result

    def _take_step(self, objective: nn.Module, images: Tensor, rate: float) -> dict[str, Tensor]:
        """Move the weights by a batch (B,3,S,S) in [-1,1]; return the parts of the loss."""
        loss, devices = self._config.loss, self._devices
        images = images.contiguous(memory_format=self._format)
        key = Draws(self._config.schedule.seed, _NOISE, self._step * devices.ranks + devices.rank).words(1)
        noise = draw_on(devices.device, int(key[0]) >> 1)
        self._network.module.train()
        outcome: Outcome = objective(images, noise, self._step)
        total, parts = outcome.total, outcome.parts
        adversary = self._adversary if self._step >= loss.adversarial_from else None
        if adversary is not None:
            extra, more = adversary.judge(images, outcome.prediction)
            total, parts = total + extra, parts | more
        parts["total"] = total.detach()
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self._network.module.parameters(), self._config.schedule.clip_norm)
        if not norm.isfinite():
            raise NonFiniteError(
                f"the gradient of step {self._step} is not finite (loss {total.item():g}); the last checkpoint is "
                "good: lower schedule.learning_rate, or train in float32, in a new folder with model.init"
            )
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        if adversary is not None:
            parts |= adversary.learn(images, outcome.prediction.detach(), rate)
        self._average()
        return parts

    @torch.no_grad()
    def _average(self) -> None:
        # Early on it is the mean of all weights so far, without the random first weights.
        decay = min(self._config.schedule.ema_decay, (self._step + 1) / (self._step + 10))
        averaged, current = (list(n.module.state_dict().values()) for n in (self._averaged, self._network))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def _progress(self) -> float:
        """Return the used part of the budget, the same in every process."""
        schedule = self._config.schedule
        if schedule.steps:
            return min(1.0, self._step / schedule.steps)
        used = torch.tensor(self._minutes / schedule.minutes, device=self._devices.device)
        return min(1.0, self._devices.mean(used).item())

    def _log(self, sums: Mapping[str, Tensor], count: int, figures: dict[str, float]) -> None:
        means = self._devices.mean(torch.stack(list(sums.values())).float()) / count
        figures |= {f"train/{name}": value for name, value in zip(sums, means.tolist(), strict=True)}
        if self._record is not None:
            self._record.figures(self._step, figures)
            self._observer.stepped(self._step, self._progress(), figures)

    def _evaluate(self) -> None:
        """Measure and save the averaged weights on rank 0; the other ranks wait."""
        if self._record is not None:
            batch = self._config.schedule.batch_size
            evaluation = evaluate(self._averaged, self._record.held_out, self._objective, batch)
            is_best = evaluation.figures["held_out/loss"] < self._best.get("held_out/loss", float("inf"))
            if is_best:
                self._best = evaluation.figures
            self._record.evaluation(self._step, self._minutes, self._averaged, self._shape, evaluation, is_best)
            self._observer.evaluated(self._step, evaluation.figures, is_best)
        self._devices.wait()

    def _save(self) -> None:
        if self._devices.rank == 0:
            state = {
                "step": self._step,
                "minutes": self._minutes,
                "best": self._best,
                "network": self._network.module.state_dict(),
                "averaged": self._averaged.module.state_dict(),
                "statistics": self._objective.statistics.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
                "adversary": self._adversary.state_dict() if self._adversary else None,
            }
            save_state(self._folder, state)
            self._observer.saved(self._step)
        self._devices.wait()

    def _restore(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            return
        self._step, self._minutes, self._best = state["step"], state["minutes"], dict(state["best"])
        self._network.module.load_state_dict(state["network"])
        self._averaged.module.load_state_dict(state["averaged"])
        self._objective.statistics.load_state_dict(state["statistics"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self._adversary is not None:
            self._adversary.load_state_dict(state["adversary"])

    def _make_objective(self, autocast: torch.dtype | None) -> Objective:
        loss = self._config.loss
        if loss.weights.rate:
            return RateObjective(self._network, loss, self._shape, autocast)
        return VariationalObjective(self._network, loss, self._config.model.kind, self._shape[0], autocast)

    def _begin(self) -> None:
        """Fit the closed-form parts of the network to some training images."""
        if self._network.begin_with is None:
            return
        view = View(self._data.train, measuring_framing(self._config.data))
        indices = range(0, len(view), -(-len(view) // BEGIN_WITH))
        images = (batch.images("cpu") for batch in view.batches(16, indices))
        # The latents of a plain autoencoder have no prior to match.
        self._network.begin_with(images, self._config.model.kind is AutoencoderKind.VAE)

    def _report(self, problem: Problem) -> None:
        if self._record is not None:
            self._record.problem(problem)
            self._observer.problem(problem)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list that SIGINT and SIGTERM join, where this is the main thread; the second SIGINT ends the process."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
