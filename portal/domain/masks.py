"""Masks: what tools show, and send back, in place of a secret that they do not know.

A mask is never taken for a value. Where something is stored it means *keep*; where nothing is, it
is refused, since it would be sent upstream as if it were the secret. The forms are those that were
met in the field: a row of asterisks or dots, a word such as `[REDACTED]`, and the first and last
characters of the value with asterisks or dots between.
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
# First and last characters around the fill, as LiteLLM's masker and its key names have them; a
# scheme may go before.
_AROUND = re.compile(
    r"(?:[A-Za-z-]{1,20}"
    rf" )?(?:[\w.~+/=-]{{0,12}}{_ROW}[\w.~+/=-]{{0,12}}|[\w-]{{2,4}}\*{{2,}}[\w-]{{2,4}}|"
    r"[\w-]{2,12}(?:\.\.\.|…)[\w-]{0,6})"
)
_SCHEME = re.compile(r"[A-Za-z-]{1,20} ")
_PART_OF_URL = re.compile(r"[/?&=#;:@]")


def looks_masked(text: str) -> bool:
    """Whether a text stands for a secret instead of being one."""
    text = text.strip()
    if not text or len(text) > 200:
        return False
    bare = _SCHEME.sub("", text, count=1) if _SCHEME.match(text) else text
    whole = (_WHOLE, _NAMED, _IN_BRACKETS, _OF_A_TYPE)
    return any(rule.fullmatch(part) for rule in whole for part in (text, bare)) or bool(
        _AROUND.fullmatch(text)
    )


def looks_masked_url(url: str) -> bool:
    """Whether a URL is a mask, or has one among its parts (`https://host/****`,
    `?key=[REDACTED]`)."""
    if looks_masked(url):
        return True
    parts = [unquote(part) for part in _PART_OF_URL.split(url)]
    return any(
        part and (re.search(_ROW, part) or _NAMED.fullmatch(part) or _IN_BRACKETS.fullmatch(part))
        for part in parts
    )


def looks_masked_argument(argument: str) -> bool:
    """Whether a command's argument is a mask, or `--name=` with one."""
    return looks_masked(argument) or looks_masked(argument.rpartition("=")[2])


def unmasked_arguments(sent: Sequence[str], stored: Sequence[str]) -> list[str] | None:
    """The arguments with each mask replaced by what is stored in its place; None where they are not
    as many."""
    if len(sent) != len(stored):
        return None
    return [
        old if looks_masked_argument(new) else new for new, old in zip(sent, stored, strict=True)
    ]
