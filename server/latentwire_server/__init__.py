# SPDX-License-Identifier: Apache-2.0
"""The server: start at `app.run` (a process), `app.background` (a thread) or `app.Server` (an event loop)."""
