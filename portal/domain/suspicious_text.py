"""Detection of text in tool definitions that a reviewer might not see or a model might obey.

There are two kinds of findings. **Characters**: invisible characters and those that reorder text
(zero-width, bidirectional controls, tags, variation selectors, other controls and formats, private
use, unassigned, lone surrogates), and lookalike letters of another script within a word.
**Phrases**: text that addresses the model instead of describing the tool; `_PHRASES` lists the
rules with their labels. The rules are hints for reviewers, not a filter. They do not detect words
that are entirely in another script, and instructions in other words or languages.

Each rule runs in linear time: patterns have no nested repetition, and the second part of a phrase
is searched for in a window of fixed length.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_WINDOW = 60  # characters between the two halves of a phrase
_MOST_STACKED = 4  # combining marks on a letter; Hebrew with accents and Vietnamese have three
_SPELLED = 60  # maximum number of characters to show of a text spelled by tag characters

_ZERO_WIDTH = {
    0x200B,
    0x200C,
    0x200D,
    0x2060,
    0xFEFF,
    0x00AD,
    0x034F,
    0x180E,
    *range(0x2061, 0x2065),
}
_BLANK_LETTERS = {0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800}  # letters and a pattern without glyph
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_TAGS = range(0xE0000, 0xE0080)
_SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x180E), 0x180F}
_CATEGORIES = {
    "Cc": "Control character",
    "Cf": "Invisible format character",
    "Cs": "Lone surrogate",
    "Co": "Private use character",
    "Cn": "Unassigned character",
    "Zl": "Line separator",
    "Zp": "Paragraph separator",
}
_NAMELESS = {"Cc": "CONTROL", "Cs": "SURROGATE", "Co": "PRIVATE USE", "Cn": "UNASSIGNED"}
_SCRIPTS = (
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "ARMENIAN",
    "CHEROKEE",
    "COPTIC",
    "FULLWIDTH LATIN",
    "MATHEMATICAL",
)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Mark:
    """A finding: range of characters, kind, label, and whether the text is visible."""

    start: int
    end: int
    kind: str
    label: str
    visible: bool


@dataclass(frozen=True)
class _Phrase:
    label: str
    words: re.Pattern[str]
    followed_by: re.Pattern[str] | None = None


def _rule(label: str, words: str, followed_by: str = "") -> _Phrase:
    return _Phrase(
        label, re.compile(words, re.I), re.compile(followed_by, re.I) if followed_by else None
    )


_SECRETS = (
    r"(?:~/|\.ssh\b|id_rsa\b|id_ed25519\b|\.env\b|\.aws\b|/etc/passwd|mcp\.json\b|\bcredentials?\b|\bpasswords?\b|"
    r"\bsecrets?\b|\bapi[ _-]keys?\b|\bprivate keys?\b|\baccess tokens?\b|\benvironment"
    r" variables?\b)"
)
_PHRASES = (
    _rule(
        "Overrides instructions",
        r"\b(?:ignore|disregard|forget|override|bypass)\b",
        r"\b(?:instructions?|rules?|prompts?|guidelines?|restrictions?|everything)\b",
    ),
    _rule(
        "Asks for secrecy",
        r"\b(?:do not|don.?t|never|without)\s{1,3}"
        r"(?:tell|mention|inform|reveal|show|notif|ask|let)",
        r"\b(?:user|users|them|anyone|anybody|human|person|people)\b",
    ),
    _rule(
        "Mentions the system prompt",
        r"\b(?:system|developer) (?:prompt|message|instructions?|mode)\b",
    ),
    _rule(
        "Gives the model a new role",
        r"\b(?:you are now|act as if|pretend (?:to be|that)|new instructions)\b",
    ),
    _rule(
        "Imitates part of the conversation",
        r"</?(?:important|system|instructions?|critical|secret|admin|assistant|user|prompt)\b(?:[^>\n]{0,80}>)?",
    ),
    _rule(
        "Gives the model instructions about the order of calls",
        r"\b(?:before|after|when|whenever|instead of) (?:you )?(?:us|call|invok|runn?)(?:e|ing)?\b",
        r"\b(?:must|always|first|read|send|include|pass|call)\b",
    ),
    _rule(
        "Asks for a file or a secret",
        r"\b(?:read|open|cat|load|get|fetch|include|copy|attach|paste|pass|provide)\b",
        _SECRETS,
    ),
    _rule(
        "Mentions a path with secrets",
        r"~/\.[\w./-]+|\.ssh/|\bid_rsa\b|\bid_ed25519\b|/etc/passwd\b|\.aws/cred",
    ),
    _rule(
        "Sends data elsewhere",
        r"\b(?:send|post|forward|upload|exfiltrate|transmit|leak|bcc)\b",
        r"https?://|[\w.+-]@[\w-]|\bwebhooks?\b|\b(?:server|address|endpoint) at\b",
    ),
    _rule("Contains a long encoded text", r"[A-Za-z0-9+/]{60,}"),
    _rule("Contains a URL", r"\bhttps?://(?!json-schema\.org/)[^\s\"'<>)\]]+"),
)


def characters(text: str) -> tuple[Mark, ...]:
    """Return the character findings in order. Adjacent ones of a kind are one finding."""
    if text.isascii() and text.isprintable():
        return ()
    found: list[Mark] = []
    run: list[int] = []
    kind = ""
    for place, letter in enumerate(text):
        what = _kind_of(text, place, letter)
        if what == kind and kind:
            run.append(place)
            continue
        if kind:
            found.append(_named(text, run[0], run[-1] + 1, kind))
        kind = what
        run = [place]
    if kind:
        found.append(_named(text, run[0], run[-1] + 1, kind))
    return tuple(sorted([*found, *_foreign_letters(text)], key=lambda mark: mark.start))


def is_suspect(letter: str) -> bool:
    """Return whether text with this character must be checked.

    The character may be hidden, a combining mark, or of a script with lookalike letters. Callers
    use this to skip text quickly.
    """
    return bool(
        _kind_of(letter, 0, letter) or _stacks(letter) or _script_of(letter) not in ("", "LATIN")
    )


def phrases(text: str) -> tuple[Mark, ...]:
    """Return the phrase findings in order, without overlaps. Invisible characters are ignored."""
    hidden = [mark for mark in characters(text) if not mark.visible]
    plain = text
    places = None
    if hidden:
        kept = _kept(len(text), hidden)
        plain = "".join(text[place] for place in kept)
        places = kept
    found: list[Mark] = []
    for start, end, label in sorted(_matches(plain), key=lambda match: (match[0], -match[1])):
        if places is not None:
            start = places[start]
            end = places[end - 1] + 1
        if not found or start >= found[-1].end:
            found.append(Mark(start, end, "phrase", label, visible=True))
    return tuple(found)


def _kept(length: int, hidden: list[Mark]) -> list[int]:
    kept: list[int] = []
    begin = 0
    for mark in hidden:
        kept.extend(range(begin, mark.start))
        begin = mark.end
    return [*kept, *range(begin, length)]


def _matches(text: str) -> Iterator[tuple[int, int, str]]:
    for rule in _PHRASES:
        for match in rule.words.finditer(text):
            end = match.end()
            if rule.followed_by is not None:
                rest = rule.followed_by.search(text, end, min(len(text), end + _WINDOW))
                if rest is None:
                    continue
                end = rest.end()
            yield match.start(), end, rule.label


def _kind_of(text: str, place: int, letter: str) -> str:
    """Return the kind of hidden character at `place`, or "" for a visible character."""
    code = ord(letter)
    category = unicodedata.category(letter)
    if letter in "\n\t\r" or (code < 0x7F and category != "Cc"):
        return ""
    if code in _TAGS:
        return "Tag characters"
    if code in _BIDI:
        return "Bidirectional control"
    if code in _SELECTORS or code == 0x200D:
        # These characters are legitimate after an emoji, or between two.
        if code in (0xFE0F, 0x200D) and _is_emoji_before(text, place):
            return ""
        return "Variation selector" if code in _SELECTORS else "Zero-width character"
    if code in _ZERO_WIDTH:
        return "Zero-width character"
    if code in _BLANK_LETTERS:
        return "Invisible letter"
    if category in ("Mn", "Me") and _is_stacked(text, place):
        return "Stacked combining mark"
    return _CATEGORIES.get(category, "")


def _is_emoji_before(text: str, place: int) -> bool:
    before = text[max(0, place - 2) : place]
    if before.endswith("\ufe0f"):  # a joiner follows the selector of an emoji
        before = before[:-1]
    return bool(before) and (
        unicodedata.category(before[-1]) == "So" or 0x1F3FB <= ord(before[-1]) <= 0x1F3FF
    )


def _stacks(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Me")


def _is_stacked(text: str, place: int) -> bool:
    """Return whether a combining mark is one of too many on a letter, which cover other lines."""
    first = last = place
    while first > 0 and place - first < _MOST_STACKED and _stacks(text[first - 1]):
        first -= 1
    while last + 1 < len(text) and last - place < _MOST_STACKED and _stacks(text[last + 1]):
        last += 1
    return last - first + 1 > _MOST_STACKED


def _named(text: str, start: int, end: int, kind: str) -> Mark:
    letters = text[start:end]
    names = [
        _name_of(letter)
        for letter in (letters if len(letters) <= 3 else letters[:1] + letters[-1:])
    ]
    label = (
        ", ".join(names)
        if len(letters) <= 3
        else f"{len(letters)} × {kind}, {names[0]} to {names[1]}"
    )
    if kind == "Tag characters":
        spelled = "".join(chr(ord(c) - 0xE0000) for c in letters if 0xE0020 <= ord(c) < 0xE007F)
        if spelled:
            label += f", which spell “{spelled[:_SPELLED]}{'…' if len(spelled) > _SPELLED else ''}”"
    return Mark(start, end, kind, label, visible=False)


def _name_of(letter: str) -> str:
    name = unicodedata.name(letter, "") or _NAMELESS.get(unicodedata.category(letter), "")
    return f"U+{ord(letter):04X} {name}".rstrip()


def _foreign_letters(text: str) -> Iterator[Mark]:
    """Yield letters that are not of the word's main script, and styled letters."""
    for word in _WORD.finditer(text):
        if word[0].isascii():
            continue
        scripts = [_script_of(letter) for letter in word[0]]
        known = [script for script in scripts if script]
        if len(set(known)) < 2 and not set(known) & {"FULLWIDTH LATIN", "MATHEMATICAL"}:
            continue
        usual = "LATIN" if "LATIN" in known else max(sorted(set(known)), key=known.count)
        for place, (letter, script) in enumerate(zip(word[0], scripts, strict=True), word.start()):
            if script and (script != usual or script in ("FULLWIDTH LATIN", "MATHEMATICAL")):
                yield Mark(
                    place, place + 1, "Letter of another script", _name_of(letter), visible=True
                )


def _script_of(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return next((script for script in _SCRIPTS if name.startswith(script)), "")
