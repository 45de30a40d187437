# SPDX-License-Identifier: Apache-2.0
"""The reports in a real browser: no error, nothing fetched, and no wider than a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.browser import Tab, browser_tab, find_browser

PROGRAM = find_browser()
PHONE, DESK = 390, 1280
RUNS = ("rate_distortion_run", "latent_cache_run", "roundtrip_run", "throughput_run", "serving_run")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="SKIPPED: no page was opened: there is no chromium here")


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    """A tab of a browser without a window."""
    assert PROGRAM is not None
    with browser_tab(PROGRAM) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("run", RUNS)
def test_a_report_has_no_error_fetches_nothing_and_fits(
    tab: Tab, request: pytest.FixtureRequest, run: str, width: int, dark: bool
) -> None:
    out: Path = request.getfixturevalue(run)
    tab.errors.clear()
    tab.requests.clear()
    tab.open(out / "report.html", width, dark=dark)
    assert tab.errors == []
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data"}
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    red, green, blue = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (red + green + blue < 3 * 128) == dark
    # A name in a table or caption must not be cut by a neighbour; what is too wide scrolls in its own box.
    assert tab.evaluate("[...document.querySelectorAll('table')].every(t => t.closest('.wide'))")
    assert tab.picture().startswith(b"\x89PNG")


def test_what_a_report_must_not_have_would_be_seen(tab: Tab, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<div style='width: 500px'>wide</div><img src='missing.png'><script>console.error('seen'); oops()</script>"
    )
    tab.errors.clear()
    tab.open(page, PHONE)
    said = "".join(tab.errors)
    assert all(text in said for text in ("seen", "oops", "missing.png"))
    assert tab.evaluate("document.documentElement.scrollWidth") > PHONE
