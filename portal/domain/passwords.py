"""Password rules: minimum length, no common passwords, no personal data."""

import math
import re
import unicodedata
from collections.abc import Iterable

from portal.domain.errors import InvalidInput

SHORTEST = 10
LONGEST = 512
_ESTIMATED = 72
"""Number of characters to evaluate, since the estimate is slow for long passwords."""
_STRONG_ENOUGH = 3  # of zxcvbn's 0 to 4: more than 10^8 guesses
_GUESSES = 10.0
"""Minimum number of guesses as a power of ten, for attackers who know how words are decorated."""
# Guesses that a year, digits and symbols around a word add, as a power of ten
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
"""Well-known examples of good passwords, in the form of `_plain`."""
_SHORTEST_NAME = 4
_SIGNS = tuple(str.maketrans("0134578926$@!|+€(", f"o{one}eastbgzbsa{one}ltec") for one in "il")
"""Symbols that replace letters. 1 replaces two of them."""
_AROUND = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def check_new_password(
    password: str, own: Iterable[str | None], *, field: str = "password"
) -> None:
    """Raise `InvalidInput` for `field`, with a remedy, for a password that is not allowed.

    `own` is the user's public data, email and name, which the password must not contain.
    """
    if len(password) < SHORTEST:
        raise InvalidInput(f"Password must be {SHORTEST} characters or more.", field=field)
    if len(password) > LONGEST:
        raise InvalidInput(f"Password must be {LONGEST} characters or fewer.", field=field)
    words = _own_words(own)
    plain = _plain(password)
    readings = _readings(password)
    if any(
        word in reading for word in words if len(word) >= _SHORTEST_NAME for reading in readings
    ):
        raise InvalidInput(
            "The password contains your email or name. Choose a password without personal data,"
            " such as four or more unrelated words.",
            field=field,
        )
    # Imported here, since its word lists take 40 ms and 10 MB.
    from zxcvbn import zxcvbn  # type: ignore[import-untyped]

    estimated = zxcvbn(password[:_ESTIMATED], user_inputs=[*words, *_OURS], max_length=_ESTIMATED)
    is_weak = estimated["score"] < _STRONG_ENOUGH or _decorated(password, words) < _GUESSES
    if is_weak or plain.startswith(_FAMOUS):
        raise InvalidInput(f"This password is too easy to guess. {_advice(estimated)}", field=field)


def _decorated(password: str, words: list[str]) -> float:
    """Return the number of guesses, as a power of ten, for a word decorated with digits.

    Examples are `Summer2026!!` and `2025-Initech`. Returns infinity for other passwords.
    """
    from zxcvbn import zxcvbn  # imported here for the same reason

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
    remedy = "Choose four or more unrelated words, or use a password manager to generate one."
    return f"{warning}. {remedy}" if warning else remedy


def _own_words(own: Iterable[str | None]) -> list[str]:
    """Return the words that identify a user, longest first: texts and parts of them."""
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
    """Return readings of a password: as it is, with symbols as letters, and reversed."""
    forwards = {
        _plain(text) for text in (password, *(password.translate(signs) for signs in _SIGNS))
    }
    return [*forwards, *(text[::-1] for text in forwards)]


def _plain(text: str) -> str:
    """Return only letters and digits, in lowercase without accents: `M.é-l` becomes `mel`."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in folded if c.isalnum())
