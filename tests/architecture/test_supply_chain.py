"""What we take from others is pinned to its content, and says nothing of where it was fetched."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements-build.txt", "requirements.txt", "requirements-dev.txt")
NPM_LOCK = ROOT / "tests" / "npm" / "package-lock.json"
VENDOR = ROOT / "static" / "vendor"
REQUIREMENT = re.compile(
    r"^(?P<name>[a-z0-9-]+)(\[[a-z0-9,-]+\])?==[^ ;]+( ; .+?)?(?P<hashes>("
    r" --hash=sha256:[0-9a-f]{64})*)$"
)
VENDORED = re.compile(r"^\| `(?P<file>[^`]+)` \|.*\| `(?P<sha256>[0-9a-f]{64})` \|$", re.MULTILINE)


def requirements(lock: str) -> list[str]:
    """Return the lock's requirements, each as one line."""
    joined = re.sub(r" \\\n +", " ", (ROOT / lock).read_text(encoding="utf-8"))
    return [line for line in joined.splitlines() if line]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9_.-]", name, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_python_package_is_pinned_to_its_hashes(lock: str) -> None:
    for line in requirements(lock):
        found = REQUIREMENT.match(line)
        assert found is not None, line
        assert found["hashes"], f"{line} has no hash"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_python_lock_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize(
    ("lock", "table", "key"),
    [
        ("requirements.txt", "project", "dependencies"),
        ("requirements-dev.txt", "dependency-groups", "dev"),
    ],
)
def test_every_dependency_is_locked(lock: str, table: str, key: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[table][key]
    assert {normal(name) for name in declared} <= {normal(line) for line in requirements(lock)}


def test_every_npm_package_is_pinned_to_its_hash_and_names_no_address() -> None:
    lock = json.loads(NPM_LOCK.read_text(encoding="utf-8"))
    for path, package in lock["packages"].items():
        assert "resolved" not in package, path
        assert path == "" or package["integrity"].startswith("sha512-"), path


def test_npm_packages_are_asked_for_by_exact_version() -> None:
    manifest = json.loads((NPM_LOCK.parent / "package.json").read_text(encoding="utf-8"))
    for name, version in manifest["devDependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name


def test_every_vendored_file_is_what_its_readme_says() -> None:
    table = (VENDOR / "README.md").read_text(encoding="utf-8")
    said = {row["file"]: row["sha256"] for row in VENDORED.finditer(table)}
    real = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in VENDOR.iterdir()
        if file.name != "README.md" and not file.name.startswith("LICENSE")
    }
    assert said == real
