# SPDX-License-Identifier: Apache-2.0
"""Ways in: gRPC, the Open Inference Protocol, HTTP."""
