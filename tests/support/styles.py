"""The format of style sheets: one declaration and one selector a line, a blank line between rules.

    python -m tests.support.styles [--check] FILE…

formats the files, or only names those that are not formatted. `make format` and `make lint` call
it.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MOST_COLUMNS = 100
_STRING = r'"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"
_TOKEN = re.compile(rf"""/\*.*?\*/|{_STRING}|[^/"'(){{}}\[\];,]+|.""", re.S)
_SPACE = re.compile(rf"({_STRING})|\s+")


@dataclass(frozen=True)
class Rule:
    """A selector or at-rule with a block. A part that is text is a declaration or a comment."""

    prelude: str
    parts: "list[str | Rule]" = field(default_factory=list)


def parse(css: str) -> list[str | Rule]:
    """Return the rules, statements and comments of a style sheet.

    Raises ValueError if a bracket, string or semicolon is missing, or a comment is inside of a
    declaration or selector.
    """
    blocks = [Rule("")]
    read = ""
    brackets: list[str] = []
    for match in _TOKEN.finditer(css):
        token = match.group()
        if token.startswith("/*") and len(token) > 1:
            if read.strip():
                raise ValueError(f"a comment inside of {read.strip()!r}")
            blocks[-1].parts.append(token)
        elif token in ("{", ";", "}") and not brackets:
            text = _SPACE.sub(lambda space: space[1] or " ", read).strip()
            read = ""
            if token == "{":
                blocks.append(Rule(text if text[:1] == "@" else ", ".join(_split(text))))
                continue
            if text:
                blocks[-1].parts.append(_statement(text))
            if token == "}":
                if len(blocks) == 1:
                    raise ValueError("a } without its {")
                rule = blocks.pop()
                blocks[-1].parts.append(rule)
        else:
            read += token
            _count(token, brackets)
    if len(blocks) > 1 or read.strip():
        raise ValueError(f"the end is missing of {(read.strip() or blocks[-1].prelude)!r}")
    return blocks[0].parts


def _count(token: str, brackets: list[str]) -> None:
    """Add an opening bracket to `brackets`, or take away the one that `token` closes."""
    if token in ("(", "["):
        brackets.append(token)
    elif token in (")", "]") and brackets:
        brackets.pop()
    elif token in ('"', "'"):
        raise ValueError("a string without its end")


def _statement(text: str) -> str:
    """Return a declaration or a statement such as `@layer a, b;` with its semicolon."""
    if text.startswith("@"):
        return f"{text};"
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is no declaration")
    return f"{name.strip()}: {value.strip()};"


def formatted(css: str) -> str:
    """Return a style sheet in the format. Raises ValueError as `parse` does."""
    return "\n".join(_lines(parse(css), 0)) + "\n"


def _lines(parts: list[str | Rule], depth: int) -> Iterator[str]:
    before: str | Rule | None = None
    indent = "  " * depth
    for part in parts:
        if before is not None and _apart(before, part):
            yield ""
        before = part
        if isinstance(part, Rule):
            *others, last = [part.prelude] if part.prelude[:1] == "@" else _split(part.prelude)
            yield from (f"{indent}{selector}," for selector in others)
            yield f"{indent}{last} {{"
            yield from _lines(part.parts, depth + 1)
            yield f"{indent}}}"
        elif len(indent + part) > MOST_COLUMNS and not part.startswith(("/*", "@")):
            name, _, values = part.removesuffix(";").partition(": ")
            *others, last = _split(values)
            yield f"{indent}{name}:"
            yield from (f"{indent}  {value}," for value in others)
            yield f"{indent}  {last};"
        else:
            yield indent + part


def _apart(before: str | Rule, part: str | Rule) -> bool:
    """Return whether a blank line separates two parts. A comment belongs to what follows."""
    if isinstance(before, str) and before.startswith("/*"):
        return False
    return isinstance(before, Rule) or isinstance(part, Rule) or part.startswith("/*")


def _split(text: str) -> list[str]:
    """Return the selectors or values of a list, which commas outside of brackets separate."""
    found = [""]
    brackets: list[str] = []
    for match in _TOKEN.finditer(text):
        if match.group() == "," and not brackets:
            found.append("")
        else:
            found[-1] += match.group()
            _count(match.group(), brackets)
    return [part.strip() for part in found]


def main(arguments: list[str]) -> int:
    """Format the files, or check them; return the exit status."""
    check = "--check" in arguments
    status = 0
    for file in [Path(name) for name in arguments if name != "--check"]:
        text = file.read_text("utf-8")
        try:
            wanted = formatted(text)
        except ValueError as error:
            sys.stderr.write(f"✗ {file}: {error}\n")
            status = 1
            continue
        if wanted == text:
            continue
        if check:
            sys.stderr.write(f"✗ {file} is not formatted; run 'make format'\n")
            status = 1
        else:
            file.write_text(wanted, "utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
