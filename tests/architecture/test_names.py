"""A public class or function name means one thing: it is defined in one module only."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.peers import ROOT

PORTAL = ROOT / "portal"
FOLDERS = ("authorization", "domain", "services")

# Names that several modules define, because they mean the same in each, with the reason.
EXCEPTIONS = {
    "TokenRequest": (
        "what a client sends to a token endpoint (RFC 6749, 4.1.3); personal keys have their own"
    ),
    "redeem": "a code for tokens (RFC 6749, 4.1.3), at the token endpoint of each flow",
}


def _public_names(path: Path) -> Iterator[str]:
    definitions = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, definitions) and not node.name.startswith("_"):
            yield node.name


def _names_of_several_modules() -> dict[str, list[str]]:
    found = defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((PORTAL / folder).rglob("*.py")):
            for name in _public_names(path):
                found[name].append(path.relative_to(PORTAL).as_posix())
    return {name: modules for name, modules in found.items() if len(modules) > 1}


def test_a_name_is_defined_in_one_module() -> None:
    found = _names_of_several_modules()
    twice = {name: modules for name, modules in found.items() if name not in EXCEPTIONS}
    assert twice == {}, "give one of them a name that says what it is"


def test_an_exception_is_needed() -> None:
    assert set(EXCEPTIONS) - set(_names_of_several_modules()) == set()
    assert all(EXCEPTIONS.values())
