# SPDX-License-Identifier: Apache-2.0
"""The coding processes of a real server: they end with it, and it waits for none of them."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from io import BytesIO
from subprocess import Popen
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from PIL import Image

from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from tests.waiting import until

Start = Callable[..., AbstractContextManager[tuple["Popen[str]", str]]]


def small_file() -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def coding_processes(server: psutil.Process) -> list[psutil.Process]:
    return [each for each in server.children(recursive=True) if "engine.coding.coder" in " ".join(each.cmdline())]


def stuck_in_a_file(stub: LatentCodecServiceStub, server: psutil.Process) -> Any:
    """Stop every coding process, and send a file: it is never read."""
    for process in coding_processes(server):
        process.suspend()
    answer = stub.Encode.future(pb.EncodeRequest(image_file=small_file()))
    until(lambda: any(process.status() == psutil.STATUS_STOPPED for process in coding_processes(server)))
    stub.GetServerInfo(pb.GetServerInfoRequest())  # sent later on the same connection: the file is there
    return answer


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_coding_processes_end_with_a_server_that_is_killed(start_server: Start, flags: tuple[str, ...]) -> None:
    with start_server(*flags) as (process, target), grpc.insecure_channel(target) as channel:
        server = psutil.Process(process.pid)
        LatentCodecServiceStub(channel).Encode(pb.EncodeRequest(image_file=small_file()))
        children = coding_processes(server)
        assert children
        for each in [server, *server.children(recursive=True)]:
            if each not in children:
                each.kill()
        for child in children:
            until(partial(is_gone, child))
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_all_processes_is_the_servers_to_obey(start_server: Start, number: signal.Signals) -> None:
    with start_server() as (process, target), grpc.insecure_channel(target) as channel:
        (child,) = coding_processes(psutil.Process(process.pid))
        child.send_signal(number)
        LatentCodecServiceStub(channel).Encode(pb.EncodeRequest(image_file=small_file()))
        assert coding_processes(psutil.Process(process.pid)) == [child]


def test_a_server_that_drains_waits_for_no_file_whose_sender_has_gone(start_server: Start) -> None:
    with start_server("--drain-timeout-s", "86400") as (process, target):
        with grpc.insecure_channel(target) as channel:
            stuck_in_a_file(LatentCodecServiceStub(channel), psutil.Process(process.pid)).cancel()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_drain_that_takes_too_long_ends_the_files_that_are_being_read(start_server: Start) -> None:
    with start_server("--drain-timeout-s", "0.5") as (process, target), grpc.insecure_channel(target) as channel:
        server = psutil.Process(process.pid)
        answer = stuck_in_a_file(LatentCodecServiceStub(channel), server)
        children = coding_processes(server)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        assert answer.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        for child in children:
            until(partial(is_gone, child))


def scans(width: int, height: int, number: int) -> bytes:
    """A progressive JPEG that goes over all its pixels again and again: a few bytes a scan."""
    file = BytesIO()
    Image.new("RGB", (width, height), "olive").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[last:end] * (number - data.count(b"\xff\xda")) + data[end:]


def test_a_small_image_is_answered_beside_files_that_take_long_to_read(start_server: Start) -> None:
    with start_server() as (process, target):
        channels = [grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(5)]
        *attackers, stub = map(LatentCodecServiceStub, channels)
        slow = pb.EncodeRequest(image_file=scans(4096, 4096, 100))
        answers = [attacker.Encode.future(slow) for attacker in attackers for _ in range(3)]
        server = psutil.Process(process.pid)
        until(lambda: len(coding_processes(server)) > 2)
        stub.Encode(pb.EncodeRequest(image_file=small_file()))
        assert not any(answer.done() for answer in answers)
        for answer in answers:
            answer.cancel()
        for channel in channels:
            channel.close()
