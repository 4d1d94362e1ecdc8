"""Tests mirror the code: `portal/web/pages/users.py` is tested by `tests/web/pages/test_users.py`.

A file may add an aspect after the name of the module: `test_users_<aspect>.py`. `mirrors.toml`
names the tests of the other modules, and the folders of tests that mirror no module.
"""

import ast
import re
import tomllib
from pathlib import Path

from tests.support.peers import ROOT

TESTS = ROOT / "tests"
TABLE = tomllib.loads((TESTS / "architecture" / "mirrors.toml").read_text(encoding="utf-8"))
ELSEWHERE: dict[str, list[str]] = TABLE["modules"]
NO_FLOORS: dict[str, str] = TABLE["suites"] | TABLE["folders"]
DOORS = ("web/api/", "web/pages/", "web/oauth/")


def _has_code(path: Path) -> bool:
    """Whether a file is more than a docstring, imports and names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)


def _modules() -> dict[str, Path]:
    """All modules below `portal/`, as `web/pages/users`. A package without code is none."""
    portal = ROOT / "portal"
    found = {}
    for path in sorted(portal.rglob("*.py")):
        name = path.relative_to(portal).with_suffix("").as_posix()
        if path.name != "__init__.py":
            found[name] = path
        elif _has_code(path):
            found[name.removesuffix("/__init__")] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """The modules that a file imports directly."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    below = {name.removeprefix("portal.").replace(".", "/") for name in names}
    return below & set(MODULES)


def _mirrored_tests() -> list[str]:
    """All tests that mirror a module, as paths below `tests/`."""
    paths = (path.relative_to(TESTS) for path in sorted(TESTS.rglob("test_*.py")))
    return [path.as_posix() for path in paths if path.parts[0] not in NO_FLOORS]


def _module_of(test: str) -> str | None:
    """The module that a test names. The longest name decides; a package is named by its folder."""
    folder, _, name = test.rpartition("/")
    words = name.removeprefix("test_").removesuffix(".py").split("_")
    for end in range(len(words), 0, -1):
        word = "_".join(words[:end])
        module = f"{folder}/{word}".strip("/")
        if module in MODULES:
            return module
        if word == folder.rpartition("/")[2] and folder in MODULES:
            return folder
    return None


MIRRORED = {module for test in _mirrored_tests() if (module := _module_of(test))}
IMPORTS_OF_DOORS = {
    module: _imports(MODULES[module]) for module in MIRRORED if module.startswith(DOORS)
}


def _is_tested_by_its_word(module: str) -> bool:
    """Whether a tested page or API file of the same feature word imports the service or form.

    A service also belongs to the feature of its package: `services/servers/crud` to `servers`.
    """
    parts = module.split("/")
    words = {parts[-1]}
    if parts[0] == "services":
        words.add(parts[-2])
    elif not module.startswith("web/forms/"):
        return False
    return any(
        door.rpartition("/")[2] in words and module in imported
        for door, imported in IMPORTS_OF_DOORS.items()
    )


TESTED = MIRRORED | {module for module in MODULES if _is_tested_by_its_word(module)}


def test_a_module_has_a_test() -> None:
    missing = set(MODULES) - TESTED - set(ELSEWHERE)
    assert sorted(missing) == [], "add a test of that name, or a line to mirrors.toml"


def test_a_test_has_the_name_of_a_module() -> None:
    assert [test for test in _mirrored_tests() if _module_of(test) is None] == []


def test_a_line_of_the_table_is_needed() -> None:
    assert [module for module in ELSEWHERE if module not in MODULES] == [], "no such module"
    assert [module for module in ELSEWHERE if module in TESTED] == [], "it has a test now"


def test_a_line_of_the_table_names_tests() -> None:
    assert [module for module, tests in ELSEWHERE.items() if not tests] == []
    named = {test for tests in ELSEWHERE.values() for test in tests}
    missing = [
        test
        for test in sorted(named)
        if not re.fullmatch(r"test_\w+\.py", test.rpartition("/")[2])
        or not (TESTS / test).is_file()
    ]
    assert missing == []


def test_a_folder_of_tests_is_that_of_a_package_or_in_the_table() -> None:
    found = [path for path in TESTS.iterdir() if path.is_dir() and list(path.glob("*.*"))]
    folders = {path.name for path in found} - {"__pycache__"}
    packages = {path.name for path in (ROOT / "portal").iterdir() if path.is_dir()}
    assert folders - packages - set(NO_FLOORS) == set()
    assert set(NO_FLOORS) - folders == set()
    assert set(NO_FLOORS) & packages == set()
    assert all(NO_FLOORS.values())


def test_helpers_are_in_their_folders_and_their_types_are_checked() -> None:
    """Beside tests there are only `conftest.py` and `__init__.py`."""
    apart = set(TABLE["folders"])
    paths = (path.relative_to(TESTS) for path in TESTS.rglob("*.py"))
    names = re.compile(r"test_\w+|conftest|__init__")
    loose = [p for p in paths if p.parts[0] not in apart and not names.fullmatch(p.stem)]
    assert loose == []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "tests.support" in settings["tool"]["mypy"]["packages"]
