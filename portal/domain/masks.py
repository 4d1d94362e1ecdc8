"""Detection of masks, which tools show and send back in place of a secret.

A mask is never stored as a value. If a secret is stored, a mask means *keep*. Otherwise it is an
error, since it would be sent upstream as the secret. The recognized formats are used by common
tools: a row of asterisks or dots, a word such as `[REDACTED]`, and the first and last characters of
the value with asterisks or dots between them.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote

_FILL = "*•●∗＊⁎▪■█"
_ROW = rf"[{_FILL}]{{3,}}"
_WHOLE = re.compile(rf"{_ROW}|[xX]{{4,}}|\.{{3,}}|…+")
_NAMED = re.compile(r"\*{0,3}(?:value )?(?:redacted|masked|obfuscated)\*{0,3}", re.I)
_IN_BRACKETS = re.compile(
    r"(?:<|\[|\(|\{\{?|__|\*{1,3}|%)\s*"
    r"(?:redacted|masked|obfuscated|hidden|filtered|removed|secret|encrypted|unchanged|keep|kept|set|stored|"
    r"sensitive(?: value)?|value hidden|no change)(?:[ _-](?:value|secret|by \w{1,20}))?"
    r"\s*(?:>|\]|\)|\}?\}|__|\*{1,3}|%)",
    re.I,
)
_OF_A_TYPE = re.compile(rf"SecretStr\('{_ROW}'\)")
# First and last characters around the fill, as in LiteLLM's masks and key names, optionally after
# an authentication scheme.
_AROUND = re.compile(
    r"(?:[A-Za-z-]{1,20}"
    rf" )?(?:[\w.~+/=-]{{0,12}}{_ROW}[\w.~+/=-]{{0,12}}|[\w-]{{2,4}}\*{{2,}}[\w-]{{2,4}}|"
    r"[\w-]{2,12}(?:\.\.\.|…)[\w-]{0,6})"
)
_SCHEME = re.compile(r"[A-Za-z-]{1,20} ")
_PART_OF_URL = re.compile(r"[/?&=#;:@]")


def looks_masked(text: str) -> bool:
    """Return whether a text is a mask instead of a secret."""
    text = text.strip()
    if not text or len(text) > 200:
        return False
    bare = _SCHEME.sub("", text, count=1) if _SCHEME.match(text) else text
    whole = (_WHOLE, _NAMED, _IN_BRACKETS, _OF_A_TYPE)
    return any(rule.fullmatch(part) for rule in whole for part in (text, bare)) or bool(
        _AROUND.fullmatch(text)
    )


def looks_masked_url(url: str) -> bool:
    """Return whether a URL is a mask or contains one (`https://host/****`, `?key=[REDACTED]`)."""
    if looks_masked(url):
        return True
    parts = [unquote(part) for part in _PART_OF_URL.split(url)]
    return any(
        part and (re.search(_ROW, part) or _NAMED.fullmatch(part) or _IN_BRACKETS.fullmatch(part))
        for part in parts
    )


def looks_masked_argument(argument: str) -> bool:
    """Return whether a command's argument is a mask, or `--name=` with a mask."""
    return looks_masked(argument) or looks_masked(argument.rpartition("=")[2])


def unmasked_arguments(sent: Sequence[str], stored: Sequence[str]) -> list[str] | None:
    """Return the arguments with masks replaced by stored ones, or None if the number differs."""
    if len(sent) != len(stored):
        return None
    return [
        old if looks_masked_argument(new) else new for new, old in zip(sent, stored, strict=True)
    ]
