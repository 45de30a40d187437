# SPDX-License-Identifier: Apache-2.0
"""A data set becomes latents once: a plan of shards, a run that can be killed, checks, and trainers' files."""
