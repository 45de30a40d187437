# SPDX-License-Identifier: Apache-2.0
"""Events that strangers cause are at most one line a minute."""

import logging

import pytest

from latentwire_server.telemetry.seldom import Seldom


def test_events_are_counted_and_make_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    seldom = Seldom(logging.getLogger("seldom"), "connections were closed", clock=lambda: now[0])
    for after_s in (0.0, 1.0, 58.9, 0.1, 0.1, 60.0):
        now[0] += after_s
        seldom.note(f"it was {now[0]:g}")
    assert caplog.messages == [
        "connections were closed: 1 since the last such line, the newest because it was 1000",
        "connections were closed: 3 since the last such line, the newest because it was 1060",
        "connections were closed: 2 since the last such line, the newest because it was 1120.1",
    ]
