# SPDX-License-Identifier: Apache-2.0
"""How long a stream goes on trying, by a clock that the test sets."""

import pytest

from latentwire_client import Retry, _outage
from latentwire_client._outage import Outage


class Clock:
    """Stands for the module `time`."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_outage, "time", clock)
    return clock


def test_without_an_answer_there_are_so_many_attempts(clock: Clock) -> None:
    outage = Outage(Retry(3, 0.5, 0.6))
    pauses = [outage.pause_s(0) for _ in range(3)]
    assert pauses[2] is None
    assert pauses[0] is not None
    assert pauses[1] is not None
    assert 0 <= pauses[0] <= 0.5
    assert 0 <= pauses[1] <= 0.6


def test_after_an_answer_a_restart_is_waited_for_however_long_that_answer_is_ago(clock: Clock) -> None:
    outage = Outage(Retry(2, reconnect_s=10))
    for answers in (5, 6):
        clock.now_s += 1000
        for _ in range(10):
            assert outage.pause_s(answers) is not None
            clock.now_s += 0.99
        clock.now_s += 1
        assert outage.pause_s(answers) is None


def test_an_answer_ends_an_outage(clock: Clock) -> None:
    outage = Outage(Retry(2, reconnect_s=0))
    for answers in range(1, 5):
        assert outage.pause_s(answers) is not None
    assert outage.pause_s(4) is None
