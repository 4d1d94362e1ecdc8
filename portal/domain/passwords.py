"""Which passwords are refused: short ones, those that many people use, and those that say who one
is."""

import math
import re
import unicodedata
from collections.abc import Iterable

from portal.domain.errors import InvalidInput

SHORTEST = 10
LONGEST = 512
_ESTIMATED = 72
"""Characters that are looked at: the estimate takes ever longer, and what is strong by then stays
so."""
_STRONG_ENOUGH = 3  # of zxcvbn's 0 to 4: more than 10^8 guesses
_GUESSES = 10.0
"""Guesses that a password has to withstand, as a power of ten, where those who guess know how
people decorate words."""
# what a year, digits and signs around words add to the guesses for the words, as a power of ten
_DECORATION = 3.0
_OURS = (
    "mcp",
    "portal",
    "mcp portal",
    "mcpportal",
    "admin",
    "company",
    "firma",
    "welcome",
    "password",
    "passwort",
    "spring",
    "summer",
    "autumn",
    "winter",
    "sommer",
    "herbst",
    "fruehling",
    "january",
    "february",
    "march",
    "april",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "qwertz",
    "qwertzuiop",
    "asdfgh",
    "yxcvbnm",
)
_FAMOUS = ("correcthorsebatterystaple", "troubador3", "troubadour3", "tr0ub4dor3")
"""Examples of good passwords, as `_plain` has them, that were good until everybody knew them."""
_SHORTEST_NAME = 4
_SIGNS = tuple(str.maketrans("0134578926$@!|+€(", f"o{one}eastbgzbsa{one}ltec") for one in "il")
"""Signs that stand for letters; 1 for two of them."""
_AROUND = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def check_new_password(
    password: str, own: Iterable[str | None], *, field: str = "password"
) -> None:
    """Raise `InvalidInput` for `field`, with the remedy, for a password that is refused.

    `own` is what everybody knows of the person: e-mail and name. None of it may be in the password.
    """
    if len(password) < SHORTEST:
        raise InvalidInput(f"A password has {SHORTEST} characters or more.", field=field)
    if len(password) > LONGEST:
        raise InvalidInput(f"A password has {LONGEST} characters at most.", field=field)
    words = _own_words(own)
    plain = _plain(password)
    readings = _readings(password)
    if any(
        word in reading for word in words if len(word) >= _SHORTEST_NAME for reading in readings
    ):
        raise InvalidInput(
            "This password holds your e-mail or your name. Choose one that says nothing of you,"
            " such as four or more words that do not belong together.",
            field=field,
        )
    from zxcvbn import zxcvbn  # type: ignore[import-untyped]  # its word lists take 40 ms and 10 MB, which only those who set passwords need

    estimated = zxcvbn(password[:_ESTIMATED], user_inputs=[*words, *_OURS], max_length=_ESTIMATED)
    if (
        estimated["score"] < _STRONG_ENOUGH
        or _decorated(password, words) < _GUESSES
        or plain.startswith(_FAMOUS)
    ):
        raise InvalidInput(f"This password is too easy to guess. {_advice(estimated)}", field=field)


def _decorated(password: str, words: list[str]) -> float:
    """The guesses for a password, as a power of ten, by those who try words with digits and signs
    around them first: `Summer2026!!`, `2025-Initech`. Infinite where it is no such password."""
    from zxcvbn import zxcvbn  # only for those who set passwords, as above

    core = _AROUND.sub("", password[:_ESTIMATED])
    if len(core) == len(password[:_ESTIMATED]) or any(c.isdigit() for c in core):
        return math.inf
    if not core:
        return 0.0
    found = zxcvbn(core.casefold(), user_inputs=[*words, *_OURS], max_length=_ESTIMATED)
    return float(found["guesses_log10"]) + _DECORATION


def _advice(estimated: dict[str, object]) -> str:
    feedback = estimated.get("feedback")
    warning = str(feedback.get("warning") or "").rstrip(".") if isinstance(feedback, dict) else ""
    remedy = (
        "Choose four or more words that do not belong together, or let a password manager make one."
    )
    return f"{warning}. {remedy}" if warning else remedy


def _own_words(own: Iterable[str | None]) -> list[str]:
    """The words that stand for a person, longest first: the whole text, its parts, and the parts of
    an e-mail."""
    found: set[str] = set()
    for text in own:
        if text:
            local, _, domain = text.partition("@")
            parts = [
                local,
                *re.split(r"[\W_]+", local),
                *(domain.split(".")[:-1] if domain else ()),
            ]
            found |= {_plain(part) for part in parts}
    return sorted((word for word in found if len(word) > 1), key=lambda word: (-len(word), word))


def _readings(password: str) -> list[str]:
    """What a password says to somebody who knows the usual tricks: as it is, with letters in place
    of the digits and signs that stand for them, and each of these backwards."""
    forwards = {
        _plain(text) for text in (password, *(password.translate(signs) for signs in _SIGNS))
    }
    return [*forwards, *(text[::-1] for text in forwards)]


def _plain(text: str) -> str:
    """Letters and digits only, in small letters, without accents: `M.é-l` is `mel`."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in folded if c.isalnum())
