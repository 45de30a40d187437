# SPDX-License-Identifier: Apache-2.0
"""Where images come from: a folder, a list, WebDataset shards, a dataset of Hugging Face -> items, and their bytes.

from latentwire_data.source import open_source

source = open_source("photos")
for item in source.items():
data = source.read(item)
"""
