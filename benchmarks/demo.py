# SPDX-License-Identifier: Apache-2.0
"""Show a server: photographs of scikit-image through `latentwire roundtrip`. This is `make demo`.

Starts `latentwire serve` on a free port and sends the photographs through `latentwire roundtrip`, which prints a table
and writes the pictures to ./demo-output; then stops the server.
"""

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from skimage import data

from benchmarks.serving.server import latentwire, serving

OUTPUT = Path("demo-output")
# Photographs in the wheel of scikit-image: nothing is downloaded.
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def main() -> int:
    """Run the demonstration; return the exit status."""
    started = time.monotonic()
    originals = write_photographs(OUTPUT / "originals")
    print("$ latentwire serve --port 0", flush=True)
    try:
        with serving([]) as served:
            print(f"{served.ready}\n$ latentwire roundtrip {OUTPUT}/originals -o {OUTPUT}\n", flush=True)
            command = [
                latentwire(),
                "roundtrip",
                str(originals),
                "-o",
                str(OUTPUT),
                "--server",
                served.target,
                "--overwrite",
            ]
            status = subprocess.run(command, check=False).returncode
    except RuntimeError as error:
        sys.exit(str(error))
    print(f"done in {time.monotonic() - started:.0f} s, the server is stopped; the pictures are in {OUTPUT.resolve()}")
    return status


def write_photographs(folder: Path) -> Path:
    """Write the photographs as PNG files; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


if __name__ == "__main__":
    sys.exit(main())
