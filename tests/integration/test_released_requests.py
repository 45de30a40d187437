# SPDX-License-Identifier: Apache-2.0
"""A request that has ended, well or not, keeps no memory: nothing of it waits for the garbage collector."""

import gc
from collections.abc import Callable
from contextlib import closing, suppress
from types import FrameType

import numpy as np
import pytest
from google.protobuf.message import Message

from latentwire_client import Client, LatentwireError, Retry, UnknownModel

IMAGE = np.zeros((64, 64, 3), np.uint8)


def one(client: Client, model: str) -> None:
    client.encode(IMAGE, model=model)


def stream(client: Client, model: str) -> None:
    with closing(client.encode_stream([IMAGE] * 3, model=model)) as answers:
        for answer in answers:
            if isinstance(answer, LatentwireError):
                raise answer


def circles(send: Callable[[Client, str], None], target: str, model: str, *, times: int) -> list[str]:
    """Return what the server leaves to the collector: its frames, and messages of the protocol."""
    gc.collect()
    gc.disable()
    try:
        with Client(target, retry=Retry(attempts=1)) as client:
            for _ in range(times):
                with suppress(UnknownModel):
                    send(client, model)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return [
            each.f_code.co_qualname if isinstance(each, FrameType) else type(each).__name__
            for each in gc.garbage
            if (isinstance(each, FrameType) and "latentwire_server" in each.f_code.co_filename)
            or isinstance(each, Message)
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("model", ["tiny", "none of this name"])
@pytest.mark.parametrize("send", [one, stream])
def test_nothing_of_an_rpc_waits_for_the_garbage_collector(
    target: str, send: Callable[[Client, str], None], model: str
) -> None:
    circles(send, target, model, times=1)  # what is made once
    assert circles(send, target, model, times=5) == []
