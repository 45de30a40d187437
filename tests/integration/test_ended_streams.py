# SPDX-License-Identifier: Apache-2.0
"""Clients that end their streams early: the server lives, and nothing of the streams is left in it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from subprocess import Popen

import grpc
import numpy as np

from latentwire_client import Client
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub

StartServer = Callable[..., AbstractContextManager[tuple["Popen[str]", str]]]
IMAGE = np.zeros((64, 64, 3), np.uint8)
NOBODY = "no-such-model"  # is refused at once


def test_a_server_outlives_streams_that_end_early_and_then_has_none_to_wait_for(
    start_server: StartServer, tiny_kl: Path
) -> None:
    # A process of its own: the fault that this looks for is a segmentation fault.
    with start_server("--model", f"tiny={tiny_kl}") as (process, target):
        for _ in range(10):
            end_while_the_server_writes(target)
        for _ in range(30):
            end_after_the_first_answer(target)
        with Client(target) as client:
            assert len(client.encode(IMAGE)) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0  # 1 after a drain in vain for requests that it believes to be running


def end_while_the_server_writes(target: str) -> None:
    """Read one answer and leave so many that the transport holds no more, and the server waits to write the next."""
    ended = threading.Event()

    def requests() -> Iterator[pb.EncodeStreamRequest]:
        for number in range(400):
            yield pb.EncodeStreamRequest(id=number, request=pb.EncodeRequest(model=NOBODY))
        ended.wait()

    # The transport would else learn to hold more.
    with grpc.insecure_channel(target, options=[("grpc.http2.bdp_probe", 0)]) as channel:
        answers = LatentCodecServiceStub(channel).EncodeStream(requests())
        next(answers)
        time.sleep(0.3)
        answers.cancel()
        ended.set()


def end_after_the_first_answer(target: str) -> None:
    with Client(target) as client, closing(client.encode_stream([IMAGE] * 3, model=NOBODY)) as answers:
        assert next(answers).error is not None
