"""The package installs and runs anywhere: source distribution, wheel, and `portal` outside the
checkout."""

import re
import shutil
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.support.peers import ROOT, Finished, bare_environment, free_port, run, start_process

RESOURCES = ("templates", "static", "migrations", "examples")
NOT_FOR_A_BUILD = shutil.ignore_patterns(
    ".*", "var", "build", "tests", "docs", "bench", "deploy", "*.egg-info", "__pycache__"
)


@dataclass(frozen=True)
class Build:
    """The two files that a release consists of."""

    source: Path
    wheel: Path

    def names(self) -> set[str]:
        """Return the paths of the files inside the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build the source distribution from a copy of the checkout, and the wheel from the source
    distribution."""
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    dist = folder / "dist"
    shutil.copytree(ROOT, checkout, ignore=NOT_FOR_A_BUILD)
    dist.mkdir()
    source = dist / call_backend("build_sdist", checkout, dist)
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    return Build(source, dist / call_backend("build_wheel", unpacked, dist))


def call_backend(hook: str, project: Path, into: Path) -> str:
    """Call a hook of the build backend (PEP 517) as pip does, in a process of its own; return the
    file's name."""
    script = (
        "import sys; from setuptools import build_meta;"
        f" sys.stderr.write(build_meta.{hook}({str(into)!r}))"
    )
    done = run([sys.executable, "-c", script], cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1].rpartition(" ")[2]


@pytest.fixture(scope="module")
def portal(built: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel without network in a new environment, which borrows the dependencies;
    return its `portal`."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    argv = [
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-compile",
    ]
    done = run([sys.executable, *argv, built.wheel])
    assert done.returncode == 0, done.stderr
    [packages] = folder.glob("lib/python*/site-packages")
    # A .pth file inside the borrowed folder is not followed, so the editable install of the
    # checkout is not seen.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run([python, "-c", "import portal; print(portal.__file__)"], cwd=folder)
    assert where.stdout.strip() == str(packages / "portal" / "__init__.py"), where.stderr
    return folder / "bin" / "portal"


@pytest.fixture(params=["serve", "demo"])
def served(
    request: pytest.FixtureRequest, portal: Path, tmp_path: Path
) -> Iterator[tuple[str, Path, str]]:
    """Run the installed portal in an empty folder; its address, the folder, and the first lines it
    printed."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = bare_environment(PORTAL_CHEAP_HASHING="true", PYTHONUNBUFFERED="1")
    argv = [portal, request.param, "--port", str(port)]
    with start_process(argv, environment, lambda: is_ready(address), cwd=tmp_path) as process:
        yield address, tmp_path, process.output()


def is_ready(address: str) -> bool:
    """Tell whether the database answers and is at the newest migration."""
    try:
        return requests.get(f"{address}/readyz", timeout=30).status_code == 200
    except requests.RequestException:
        return False


def files_below(folder: str) -> set[str]:
    """Return the paths of the checkout's files below `folder`, relative to the checkout."""
    found = (
        path
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return {str(path.relative_to(ROOT)) for path in found}


@pytest.mark.parametrize("folder", RESOURCES)
def test_the_wheel_holds_every_file_of(folder: str, built: Build) -> None:
    files = files_below(folder)
    assert files
    assert {f"portal/bundled/{name}" for name in files} <= built.names()


def test_the_wheel_holds_the_package_its_data_and_its_license_and_no_more(built: Build) -> None:
    names = built.names()
    assert {name for name in files_below("portal") if name.endswith((".py", ".json"))} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"portal", "mcp_portal"}
    assert not [name for name in names if name.endswith((".pyc", ".pyo"))]


def test_the_installed_command_tells_the_version_of_pyproject(portal: Path, tmp_path: Path) -> None:
    told: Finished = run([portal, "--version"], env=bare_environment(), cwd=tmp_path)
    [version] = re.findall(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert told.stdout == f"portal, version {version}\n", told.stderr


def test_the_installed_portal_serves_its_sign_in_page_with_style_from_an_empty_folder(
    served: tuple[str, Path, str],
) -> None:
    address, folder, printed = served
    page = requests.get(f"{address}/login", timeout=30)
    assert page.status_code == 200
    sheets = re.findall(r'<link[^>]+href="(/static/[^"]+\.css[^"]*)"', page.text)
    assert sheets
    for sheet in sheets:
        style = requests.get(address + sheet, timeout=30)
        assert (style.status_code, style.headers["Content-Type"].split(";")[0]) == (200, "text/css")
    assert (folder / "var" / "portal.db").exists()
    if "Sample MCP server" in printed:
        [server] = re.findall(r"Sample MCP server +(\S+)", printed)
        assert requests.post(server, json={}, timeout=30).status_code < 500, (
            "the sample MCP server answers"
        )
