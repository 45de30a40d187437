# SPDX-License-Identifier: Apache-2.0
"""The front page: what is to be seen first, and how long it is."""

from tests.docs.pages import text_of

README = text_of("README.md").splitlines()


def test_the_picture_comes_within_ten_lines_and_code_with_output_within_thirty() -> None:
    assert any(line.startswith("![") for line in README[:10])
    assert "client.decode" in "\n".join(README[:30])
    assert "# Latents(" in "\n".join(README[:30])


def test_it_is_short() -> None:
    assert len(README) <= 120
    assert max(map(len, README)) <= 120
