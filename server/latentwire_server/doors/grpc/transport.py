# SPDX-License-Identifier: Apache-2.0
"""A configuration -> the options of gRPC's transport, which bound what a connection costs before any token is read."""

from latentwire_server.config import ServerConfig

# Bytes of a call that the transport takes before the call's message is asked for; gRPC's own window may be 4 MiB.
UNASKED_BYTES = 2**16
# Bit 0 is `identity`. Another encoding is refused before the message is inflated: 1 MB can become 1 GB.
NO_COMPRESSION = 1
# From the connection to the settings of HTTP/2; with TLS its handshake, too.
HANDSHAKE_MS = 10_000
# A connection without a call. Our client dials again when it has another call, and an open stream is a call. There is
# no limit of age: it would break streams that are patient.
IDLE_MS = 300_000
# A peer that vanished without a word is noticed within 80 s, and what it asked for ends.
PING_MS, PING_TIMEOUT_MS = 60_000, 20_000
# Clients may ping every 10 s, also without a call; the default of 5 minutes would cut them off. Who pings more often is
# cut off.
LEAST_PING_MS = 10_000


def channel_options(config: ServerConfig, *, shares_port: bool) -> list[tuple[str, int]]:
    """Return gRPC's options; `shares_port` says whether other processes of this server listen on the port, too."""
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Two servers must not share a port by accident.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.compression_enabled_algorithms_bitset", NO_COMPRESSION),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.max_concurrent_streams", config.max_calls),
        # It would count calls that have ended and are still being taken apart, and reset honest clients' new ones.
        ("grpc.http.overload_protection", 0),
        ("grpc.http2.lookahead_bytes", UNASKED_BYTES),
        ("grpc.http2.bdp_probe", 0),  # would widen the window again
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_time_ms", PING_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
