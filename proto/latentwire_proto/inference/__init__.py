# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol: `grpc_service.proto`, and its compiled form beside it."""
