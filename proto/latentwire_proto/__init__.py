# SPDX-License-Identifier: Apache-2.0
"""The wire: `latentwire_proto.v1` holds the protobuf messages and the gRPC stubs."""

__version__ = "0.1.0"
"""The version of latentwire: one for the four packages."""
