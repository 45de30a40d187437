# SPDX-License-Identifier: Apache-2.0
"""The hint installs an extra of a release and of a checkout."""

from latentwire_core.extras import install_hint


def test_the_hint_names_both_commands() -> None:
    assert install_hint("train") == "pip install 'latentwire[train]', or in a checkout pip install -e '.[train]'"
