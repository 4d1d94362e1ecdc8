"""Comparison of tool definitions: their compared fields, hash, and a diff of two versions.

The compared fields are those that a model or client receives: name, title, description, both
schemas and the annotations. The hash is the SHA-256 of these fields as JSON with sorted keys, so
that the order of keys and extra keys of a server (`_meta`) do not matter.

A diff consists of runs: pieces of the text with their change and findings. The runs of one side,
joined together, are exactly the text of that side.
"""

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from portal.domain.suspicious_text import Mark, characters, phrases

MAX_BYTES = 32 * 1024
"""Maximum size of a stored definition in bytes of JSON. Larger ones are stored as a hash only."""

_COUNTS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
_LABELS = {
    "name": "Name",
    "title": "Title",
    "description": "Description",
    "inputSchema": "Input schema",
    "outputSchema": "Output schema",
    "annotations": "Annotations",
    "too_large": "Size",
}
# The time of difflib grows with the pairs of equal pieces. Beyond these limits, the whole text is
# shown as replaced.
_MOST_PIECES = 1_000
_MOST_PAIRS = 30_000
_LONGEST_EXCERPT = 120
_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True)
class Run:
    """A piece of a text.

    `change` is same, removed or added. `hidden` names characters that are invisible or misleading;
    with `visible`, the text itself is also shown. `phrase` is the label of the enclosing phrase,
    and `opens` is true where that phrase begins.
    """

    text: str
    change: str = "same"
    hidden: str = ""
    visible: bool = True
    phrase: str = ""
    opens: bool = False


@dataclass(frozen=True)
class FieldDiff:
    """The old and new version of one field of a definition. A side without text has no runs."""

    label: str
    is_code: bool
    changed: bool
    old: tuple[Run, ...]
    new: tuple[Run, ...]


@dataclass(frozen=True)
class Warning:
    """A finding in a definition: the field, the kind of finding, and an excerpt."""

    where: str
    what: str
    excerpt: str


def definition_of(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Return the compared fields of a tool in MCP format."""
    return {name: wire[name] for name in _COUNTS if wire.get(name) is not None}


def canonical_json(definition: Mapping[str, Any]) -> str:
    """Return the definition as canonical JSON."""
    return json.dumps(definition, sort_keys=True, separators=(",", ":"))


def definition_hash(definition: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON in hex."""
    return hashlib.sha256(canonical_json(definition).encode()).hexdigest()


def kept_of(definition: Mapping[str, Any], left: int = MAX_BYTES) -> dict[str, Any]:
    """Return the definition to store, or a note of its size if it has more than `left` bytes."""
    size = len(canonical_json(definition))
    if size <= min(left, MAX_BYTES):
        return dict(definition)
    return {"too_large": f"{size:,} bytes of JSON, too large to store. Only the hash is compared."}


def warnings_of(definition: Mapping[str, Any] | None) -> tuple[Warning, ...]:
    """Return all findings in a definition, by field."""
    found: list[Warning] = []
    for name in definition or {}:
        text = _text_of((definition or {})[name])
        label = _LABELS[name]
        if name == "too_large":
            found.append(Warning(label, "Too large to show", text))
        found += [Warning(label, m.kind, m.label) for m in characters(text)]
        found += [Warning(label, m.label, _excerpt(text[m.start : m.end])) for m in phrases(text)]
    return tuple(dict.fromkeys(found))


def diff_definitions(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> tuple[FieldDiff, ...]:
    """Return the diff of two definitions, by field. None means that there is no definition."""
    before = old or {}
    after = new or {}
    return tuple(
        _field(name, before.get(name), after.get(name))
        for name in _LABELS
        if name in before or name in after
    )


def marked(text: str) -> tuple[Run, ...]:
    """Return a single text as runs with its findings."""
    return _runs(text, [(0, len(text), "same")])


def _field(name: str, old: Any, new: Any) -> FieldDiff:
    is_code = not isinstance(old if new is None else new, str)
    before = _text_of(old)
    after = _text_of(new)
    cut = (lambda text: text.splitlines(keepends=True)) if is_code else _WORDS.findall
    left, right = _pieces(before, after, cut(before), cut(after))
    return FieldDiff(
        _LABELS[name], is_code, before != after, _runs(before, left), _runs(after, right)
    )


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        # Not escaped, so that hidden characters in a schema are also found.
        return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    except RecursionError:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)


Piece = tuple[int, int, str]


def _pieces(
    before: str, after: str, old: Sequence[str], new: Sequence[str]
) -> tuple[list[Piece], list[Piece]]:
    """Return the character ranges of both sides that are the same, removed or added."""
    if before == after:
        return [(0, len(before), "same")], [(0, len(after), "same")]
    ours = Counter(old)
    theirs = Counter(new)
    pairs = sum(count * theirs[piece] for piece, count in ours.items())
    if max(len(old), len(new)) > _MOST_PIECES or pairs > _MOST_PAIRS:
        return [(0, len(before), "removed")], [(0, len(after), "added")]
    left = list[Piece]()
    right = list[Piece]()
    at = [_offsets(old), _offsets(new)]
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        if i1 < i2:
            left.append((at[0][i1], at[0][i2], "same" if tag == "equal" else "removed"))
        if j1 < j2:
            right.append((at[1][j1], at[1][j2], "same" if tag == "equal" else "added"))
    return left, right


def _offsets(pieces: Iterable[str]) -> list[int]:
    found = [0]
    for piece in pieces:
        found.append(found[-1] + len(piece))
    return found


def _runs(text: str, pieces: Sequence[Piece]) -> tuple[Run, ...]:
    """Split a text at the boundaries of changes, character findings and phrases."""
    hidden = characters(text)
    said = phrases(text)
    cuts = {edge for start, end, _ in pieces for edge in (start, end)}
    cuts |= {edge for mark in (*hidden, *said) for edge in (mark.start, mark.end)}
    edges = sorted(cuts)
    found: list[Run] = []
    at = iter(pieces)
    in_hidden = _Cursor(hidden)
    in_said = _Cursor(said)
    piece = next(at, None)
    for start, end in pairwise(edges):
        while piece is not None and piece[1] <= start:
            piece = next(at, None)
        mark = in_hidden.at(start)
        phrase = in_said.at(start)
        found.append(
            Run(
                text[start:end],
                piece[2] if piece else "same",
                mark.label if mark else "",
                mark.visible if mark else True,
                phrase.label if phrase else "",
                bool(phrase and phrase.start == start),
            )
        )
    return tuple(found)


class _Cursor:
    """Find the finding at a position, for ascending positions."""

    def __init__(self, found: Sequence[Mark]) -> None:
        self._found = found
        self._next = 0

    def at(self, place: int) -> Mark | None:
        while self._next < len(self._found) and self._found[self._next].end <= place:
            self._next += 1
        mark = self._found[self._next] if self._next < len(self._found) else None
        return mark if mark and mark.start <= place else None


def _excerpt(text: str) -> str:
    """Return the text of a finding on one line, with hidden characters named."""
    shown = "".join(
        f"{r.text if r.visible else ''}{f' [{r.hidden}]' if r.hidden else ''}" for r in _bare(text)
    )
    flat = " ".join(shown.split())
    return flat if len(flat) <= _LONGEST_EXCERPT else f"{flat[:_LONGEST_EXCERPT]}…"


def _bare(text: str) -> Iterable[Run]:
    edges = 0
    runs = list[Run]()
    for mark in characters(text):
        runs += [
            Run(text[edges : mark.start]),
            Run(text[mark.start : mark.end], hidden=mark.label, visible=mark.visible),
        ]
        edges = mark.end
    return [*runs, Run(text[edges:])]
