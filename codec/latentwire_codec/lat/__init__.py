# SPDX-License-Identifier: Apache-2.0
"""Latents or images <-> `.lat` payloads."""
