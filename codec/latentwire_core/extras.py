# SPDX-License-Identifier: Apache-2.0
"""The name of an extra -> the command that installs it, for messages about a package that is missing."""


def install_hint(extra: str) -> str:
    """Return the command that installs an extra, such as `train`: from the package index, and in a checkout."""
    return f"pip install 'latentwire[{extra}]', or in a checkout pip install -e '.[{extra}]'"
