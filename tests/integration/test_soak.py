# SPDX-License-Identifier: Apache-2.0
"""5000 mixed requests to one server: what it holds does not grow."""

import http.client
import itertools

import grpc
import numpy as np
import pytest

from latentwire_proto.v1 import latent_codec_pb2 as pb
from tests.fuzz.image_files import corpus
from tests.fuzz.live import LIMITS, Held, LiveServer
from tests.fuzz.rpcs import CODEC, HEALTH, REFLECTION, requests
from tests.waiting import until

REQUESTS, WARM = 5000, 1500
"""All requests, and those after which pools and caches are as large as they become."""
MOST_GROWTH_MIB = 48
LATENTS = np.linspace(-3, 3, 4 * 6 * 8, dtype=np.float32).tobytes()
QUERY = "?shape=1&shape=4&shape=6&shape=8&dtype=float32&output_type=pt&do_scaling=true"
OVER_HTTP = (
    (f"/decode{QUERY}", "tensor/binary", LATENTS, 200),
    ("/encode", "image/png", corpus()["PNG"][0], 200),
    ("/encode", "image/png", corpus()["PNG"][0][:-60], 400),
    ("/nobody", "image/png", b"", 404),
)


def payload(server: LiveServer) -> bytes:
    """Ask the server for a `.lat`."""
    request = pb.EncodeRequest(image_file=corpus()["PNG"][0], lat=pb.LatOutput())
    with server.channel() as channel:
        answer = channel.unary_unary(f"{CODEC}Encode")(request.SerializeToString())
    return pb.EncodeResponse.FromString(answer).lat.payloads[0]


def ask_once_each(server: LiveServer, good: dict[str, list[bytes]], turn: int) -> int:
    """Make each call well, badly, late and for nobody, and some over HTTP; return their number."""
    asked = 0
    with server.channel() as channel:
        for path, messages in good.items():
            if path in {f"{HEALTH}Watch", REFLECTION}:
                lasting = channel.stream_stream(path)(iter(messages[:1]))
                next(lasting)
                lasting.cancel()
                asked += 1
                continue
            if path.endswith("Stream"):
                answers = list(channel.stream_stream(path)(iter(messages)))
                assert len(answers) == len(messages)
                early = channel.stream_stream(path)(itertools.chain(messages, messages))
                next(early)
                early.cancel()
                asked += 2
                continue
            for message in messages:
                call = channel.unary_unary(path)
                if path.startswith("/no.such"):
                    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                        call(message)
                else:
                    call(message)
                bad = call.future(message[: len(message) // 2])
                late = call.future(message, timeout=0.0005 * (turn % 20 + 1))
                left = call.future(message)
                left.cancel()
                for ended in (bad, late):
                    ended.exception()
                asked += 4
    for path, kind, body, status in OVER_HTTP:
        link = http.client.HTTPConnection(*server.http)
        link.request("POST", path, body, {"Content-Type": kind})
        answer = link.getresponse()
        answer.read()
        link.close()
        assert answer.status == status
    return asked + len(OVER_HTTP)


def at_rest(server: LiveServer, most: Held | None = None) -> Held:
    """Wait until no more threads and descriptors are held than at most, and return what is held."""
    if most is not None:
        until(lambda: (held := server.check()).threads <= most.threads and held.descriptors <= most.descriptors)
    return server.check()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_threads_and_descriptors_are_flat_over_5000_mixed_requests() -> None:
    with LiveServer("--model", "f8c4", *LIMITS) as server:
        good = requests(payload(server))
        asked, turns = 0, itertools.count()
        while asked < WARM:
            asked += ask_once_each(server, good, next(turns))
        before = at_rest(server)
        while asked < REQUESTS:
            asked += ask_once_each(server, good, next(turns))
        after = at_rest(server, before)
        print(f"after {asked} requests: {before} -> {after}")
        assert after.mib - before.mib < MOST_GROWTH_MIB, (before, after)
