# SPDX-License-Identifier: Apache-2.0
"""The golden files are decoded to the same numbers for ever, by this decoder and by one written from the page.

A failure means that files which people have would decode to something else. Then `container.VERSION` must change, and
`python -m tests.codec.lat.lat_golden` writes new files beside the old ones.
"""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latentwire_codec.lat import coder
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.lat.tables import FILE, Tables, common_tables
from latentwire_core import container
from latentwire_core.errors import BitstreamError, Malformed
from tests.codec.lat import lat_reference
from tests.codec.lat.lat_golden import CASES, FOLDER, digest, integers, read

ROOT = Path(__file__).parents[3]
TABLES = lat_reference.Tables(FILE)
INTEGERS = "2c343c21dabf2d8bdbb69596c0c0e76eac1c7a441e0faab679cc3d3b5e539b72"
LATENTS = "375401af4e68d3ac4de595bbbbac04320a641a4fb44ebc3935ce3e679afde712"
FILES = "2f393684681ead5df8edb1e1d48c170edac03fe586bb71d42842ffd95d6722fa"


def test_the_files_are_those_that_were_frozen() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)
    assert hashlib.sha256(b"".join(read(name) for name in CASES)).hexdigest() == FILES
    assert sum(len(read(name)) for name in CASES) < 60_000


def test_the_page_names_what_is_there() -> None:
    page = FOLDER.parents[1] / "docs" / "bitstream.md"
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert len(links) >= 2
    assert not [link for link in links if not (page.parent / link).exists()]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {
        *(error.__name__ for error in BitstreamError.__subclasses__()),
        *(each.name for each in dataclasses.fields(Tables)),
    }


def test_all_integers_are_what_they_always_were() -> None:
    assert digest([integers(read(name))[3] for name in CASES]) == INTEGERS


@pytest.mark.parametrize("threads", ["1", "3"])
def test_other_thread_counts_and_processors_find_the_same_integers(threads: str) -> None:
    program = (
        "from tests.codec.lat.lat_golden import CASES, digest, integers, read;"
        "print(digest([integers(read(name))[3] for name in CASES]))"
    )
    # As on a processor that has no more than numpy needs.
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    plain = {"OMP_NUM_THREADS": threads, "NPY_DISABLE_CPU_FEATURES": " ".join(extensions)}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=os.environ | plain, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == INTEGERS


def test_all_latents_are_what_they_always_were() -> None:
    assert digest([decompress_latents(read(name))[0] for name in CASES]) == LATENTS


def test_the_files_have_every_part_of_the_format() -> None:
    found = [integers(read(name)) for name in CASES]
    assert {header.kind for header, *_ in found} == set(container.PayloadKind)
    assert {header.shape[0] for header, *_ in found} >= {1, 4, 16, 32, 96}
    assert all(any(getattr(sections, name) for _, sections, _, _ in found) for name in container.SECTION_NAMES)
    assert {len(sections.weights) // 9 for _, sections, _, _ in found} >= {1, 2, 4}
    assert {len(set(header.numerators)) for header, *_ in found} >= {1, 4}
    assert {0} < {header.reconstruction_offset for header, *_ in found}


@pytest.mark.parametrize("name", CASES)
def test_a_decoder_written_from_the_page_finds_the_same(name: str) -> None:
    latents, header = decompress_latents(read(name))
    payload, found, values = lat_reference.decode(read(name), TABLES)
    assert found == integers(read(name))[3].ravel().tolist()
    assert np.array(values, latents.dtype).tobytes() == latents.tobytes()
    assert (payload.model, payload.latent_space) == (header.model, header.latent_space)
    assert (payload.shape, payload.image_size) == (header.shape, header.image_size)


@pytest.mark.parametrize("name", CASES)
def test_what_is_decoded_is_coded_to_the_same_bytes(name: str) -> None:
    """The way from integers to bytes has no floating-point number in it, on any machine."""
    header, sections, side_information, found = integers(read(name))
    coded = coder.encode(found, common_tables().context_model(side_information))
    again = container.Sections(side_information.to_bytes(), **vars(coded), remainders=sections.remainders)
    assert container.pack(header, again) == read(name)


@pytest.mark.parametrize("name", ["constants", "low-bits", "odd-sides", "outliers", "half-extremes", "vector"])
def test_both_decoders_refuse_the_same_payloads(name: str) -> None:
    """Sections of another length, with right checksums."""
    header, sections = container.unpack(read(name))
    for part in container.SECTION_NAMES:
        data = getattr(sections, part)
        for wrong in (data[:-1], data + b"\0", data + bytes(4), data[1:]):
            if wrong == data:
                continue
            payload = container.pack(header, container.Sections(**{**vars(sections), part: wrong}))
            found: object
            expected: object
            try:
                found = decompress_latents(payload)[0].ravel().tolist()
            except Malformed:
                found = None
            try:
                expected = lat_reference.decode(payload, TABLES)[2]
            except lat_reference.Wrong:
                expected = None
            assert found == expected
