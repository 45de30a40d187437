# SPDX-License-Identifier: Apache-2.0
"""Every request goes one way: counted by how it ends, and refused by the field of its own door."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from latentwire_core.errors import UnknownModel
from latentwire_server.doors.corridor import Corridor
from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.work import Passage
from latentwire_server.errors import InvalidRequest
from latentwire_server.telemetry.metrics import Metrics

CALLER = Caller("client")


class FakeEngine:
    """One model, whose result is its job in capitals."""

    def __init__(self) -> None:
        self.work = SimpleNamespace(encode=self.carry_out, decode=self.carry_out)
        self.images: list[int] = []

    def model_name(self, name: str) -> str:
        if name not in ("", "tiny"):
            raise UnknownModel(name)
        return "tiny"

    async def carry_out(self, name: str, passage: Passage[Any, Any, str], caller: Caller) -> str:
        assert (name, caller) == ("tiny", CALLER)
        self.images.append(passage.images())
        return passage.to_answer(passage.to_job("model").upper())  # type: ignore[arg-type]


class Door:
    """A corridor, and what was counted."""

    def __init__(self) -> None:
        self.engine, self.metrics = FakeEngine(), Metrics()
        self.corridor = Corridor(self.engine, self.metrics)  # type: ignore[arg-type]

    async def ask(self, to_job: Callable[[Any], Any], model: str = "", operation: str = "encode") -> Any:
        passage: Passage[Any, Any, Any] = Passage(
            model=model,
            images=lambda: 3,
            to_job=to_job,
            to_answer=lambda result: f"<{result}>",
            fields={"seeds": "latents.seeds"},
        )
        work = self.corridor.encode if operation == "encode" else self.corridor.decode
        return await work(passage, CALLER)

    def counted(self, operation: str = "encode") -> tuple[int, int]:
        work = self.metrics.statistics.of("tiny", operation)
        return work.success.count, work.fail.count


def refusing(field: str) -> Callable[[Any], Any]:
    def to_job(model: Any) -> Any:
        raise InvalidRequest(field, "wrong")

    return to_job


@pytest.mark.parametrize("operation", ["encode", "decode"])
async def test_a_message_becomes_a_job_and_the_result_an_answer(operation: str) -> None:
    door = Door()
    assert await door.ask(lambda model: f"job for {model}", operation=operation) == "<JOB FOR MODEL>"
    assert door.engine.images == [3]
    assert door.counted(operation) == (1, 0)


@pytest.mark.parametrize(("field", "told"), [("seeds", "latents.seeds"), ("target_size", "target_size")])
async def test_a_refusal_names_the_field_of_the_door(field: str, told: str) -> None:
    door = Door()
    with pytest.raises(InvalidRequest, match="wrong") as caught:
        await door.ask(refusing(field))
    assert caught.value.field == told
    assert door.counted() == (0, 1)


async def test_an_unknown_model_is_refused_and_counted_for_no_model() -> None:
    door = Door()
    with pytest.raises(UnknownModel):
        await door.ask(str, model="other")
    assert door.counted() == (0, 0)
