# SPDX-License-Identifier: Apache-2.0
"""Image files <-> pixels in processes that can be killed, and the turns of the clients at processes and threads."""
