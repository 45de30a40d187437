# SPDX-License-Identifier: Apache-2.0
"""Photographs that scikit-image ships -> a server and back: `python -m benchmarks.demo`, or `make demo`.

Starts `latentwire serve` on a free port, sends the photographs through `latentwire roundtrip`, which prints the table
and writes the pictures to ./demo-output, and stops the server.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from skimage import data

OUTPUT = Path("demo-output")
# Those that are in its wheel: nothing is downloaded.
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
STOP_S = 90


def main() -> int:
    """Run the demonstration; return the exit status."""
    started = time.monotonic()
    originals = write_photographs(OUTPUT / "originals")
    with serving() as address:
        print(f"$ latentwire roundtrip {OUTPUT}/originals -o {OUTPUT}\n", flush=True)
        command = [
            latentwire(), "roundtrip", str(originals), "-o", str(OUTPUT), "--server", address, "--overwrite",
        ]  # fmt: skip
        status = subprocess.run(command, check=False).returncode
    print(f"done in {time.monotonic() - started:.0f} s, the server is stopped; the pictures are in {OUTPUT.resolve()}")
    return status


def write_photographs(folder: Path) -> Path:
    """Write the photographs as PNG files; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


@contextmanager
def serving() -> Iterator[str]:
    """Start a server on a free port; yield its address; stop it as an init system would.

    Raises:
        SystemExit: it did not start, or did not end well.
    """
    print("$ latentwire serve --port 0", flush=True)
    log = OUTPUT / "server.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen([latentwire(), "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=stderr, text=True)
        as server,
    ):  # fmt: skip
        assert server.stdout is not None
        ready = server.stdout.readline()
        if not ready:
            raise SystemExit(f"the server did not start: {log.read_text().strip() or server.wait()}")
        print(ready, flush=True)
        try:
            yield ready.removeprefix("serving ").split(" on ")[1].strip()
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(STOP_S)
    if status != 0:
        raise SystemExit(f"the server ended with the status {status}; see {log}")


def latentwire() -> str:
    """Return the path of the command that belongs to this Python."""
    return str(Path(sys.executable).with_name("latentwire"))


if __name__ == "__main__":
    sys.exit(main())
