# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, and that its base install is the light client."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from latentwire_proto import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "latentwire_cache",
    "latentwire_cli",
    "latentwire_client",
    "latentwire_codec",
    "latentwire_core",
    "latentwire_data",
    "latentwire_lab",
    "latentwire_proto",
    "latentwire_server",
    "latentwire_train",
}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run `command` outside the source tree, so that only what is installed can be imported."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix).anchor,
        check=False,
    )


def succeed(*command: object) -> str:
    """Run `command` and return its standard output; the test fails where it fails."""
    result = run(*command)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def canonical(requirement: str) -> str:
    """Return the project that `requirement` names, as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    succeed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs' folder of a new virtual environment that holds the wheel, without an extra."""
    folder = tmp_path_factory.mktemp("base")
    constraints = ROOT / "constraints.txt"
    succeed(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip = (programs / "python", "-m", "pip", "--retries", "1", "--disable-pip-version-check")
    # A small dependency on its own tells a machine without a package index from a wheel that cannot be installed.
    if run(*pip, "download", "--no-deps", "--dest", folder, "rich").returncode:
        pytest.skip("the base install was NOT tested: no package index can be reached")
    succeed(*pip, "install", "--constraint", constraints, wheel)
    return programs


def test_the_wheel_holds_the_packages_and_nothing_else(names: set[str]) -> None:
    top_level = {name.partition("/")[0] for name in names}
    assert top_level == PACKAGES | {f"latentwire-{__version__}.dist-info"}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_package_is_marked_as_typed(names: set[str], package: str) -> None:
    assert f"{package}/py.typed" in names


@pytest.mark.parametrize("model", ["f8c4", "f8c32"])
def test_the_wheel_carries_a_bundled_model(names: set[str], model: str) -> None:
    folder = f"latentwire_codec/weights/{model}"
    assert {name for name in names if name.startswith(folder + "/")} == {
        f"{folder}/{file}" for file in ("README.md", "config.json", "diffusion_pytorch_model.safetensors")
    }


def test_the_wheel_carries_the_protocol_and_its_types(names: set[str]) -> None:
    protocol = "latentwire_proto/v1/latent_codec"
    assert {f"{protocol}.proto", f"{protocol}_pb2.pyi"} <= names
    assert "latentwire_proto/inference/grpc_service.binpb" in names


def test_the_wheel_carries_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"latentwire-{__version__}.dist-info/licenses/LICENSE").decode()
    assert text == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_tested_version_is_an_exact_one() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    # A local label (`+cpu`) would shut out every other build of the same release.
    assert not [pin for pin in pins if pin.count("==") != 1 or "+" in pin or "*" in pin]


def test_every_requirement_has_a_tested_version() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    required = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *(line for group in pyproject["dependency-groups"].values() for line in group if isinstance(line, str)),
    ]
    pinned = {canonical(pin) for pin in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {canonical(line) for line in required} - pinned == {"latentwire"}


def test_the_base_install_imports_the_client_and_has_no_torch(base_install: Path) -> None:
    script = """
import importlib.util, json
import latentwire_client
heavy = ("torch", "diffusers", "transformers", "prometheus_client")
print(json.dumps([name for name in heavy if importlib.util.find_spec(name)]))
"""
    assert json.loads(succeed(base_install / "python", "-I", "-c", script)) == []


def test_the_base_install_runs_the_command(base_install: Path) -> None:
    assert "serve" in succeed(base_install / "latentwire", "--help")
    assert __version__ in succeed(base_install / "latentwire", "--version")
