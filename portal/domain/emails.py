"""Normalization of email addresses, with protection against lookalikes.

The domain is converted to IDNA (UTS 46), the local part to NFKC.
"""

import re
import unicodedata

import idna

LONGEST = 320
REFUSED = (
    "This email address is not valid, or contains characters that make it look like another one. "
    "Use plain letters of one script for each part, without quotes."
)
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
)
"""Scripts that may be combined (UTS 39, section 5.2, Highly Restrictive)."""
_QUOTING = frozenset('"\\')
# ASCII punctuation, which separates the words of a local part
_BETWEEN_WORDS = re.compile(r"[!-,./:-?\[-`{-~-]+")
_LIKE_ASCII = frozenset(
    "аеорсухіјѕһԁԛԝӏѵүԍм"  # Cyrillic
    "αικνορτυχγϲϳω"  # Greek
    "օոսցհյզք"  # Armenian
    "ɑɡıȷɩʟɪᴏᴜᴠᴡᴢꜱʏǀƨƽɢʙɴʀɛ"  # Latin letters without an accent that look like ASCII letters
)
"""Letters that look like ASCII letters or digits (UTS 39), as a label of only these does."""


def domain_of(email: str) -> str:
    """Return the domain of an email address as a lowercase A-label, or "" if it is not valid."""
    text = email.strip()
    local, _, domain = text.partition("@")
    if not local or "@" in domain or len(text) > LONGEST:
        return ""
    if not text.isprintable() or any(c.isspace() for c in text):
        return ""
    return ascii_domain(domain) if _is_honest_name(_normal_name(local)) else ""


def normal_email(email: str) -> str:
    """Return an email address as stored: lowercase, NFKC, with the domain as its A-label.

    Returns "" for an invalid address.
    """
    domain = domain_of(email)
    return f"{_normal_name(email.strip().partition('@')[0])}@{domain}" if domain else ""


def _normal_name(local: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).lower())


def _is_honest_name(local: str) -> bool:
    """Return whether a local part is unambiguous: no quotes, and each word in one script."""
    if any(c in _QUOTING or c == "@" or c.isspace() for c in local):
        return False
    words = [word for word in _BETWEEN_WORDS.split(local) if word]
    scripts = {_script(c) for c in local if unicodedata.category(c)[0] == "L"}
    is_of_one = len(scripts) < 2 or any(scripts <= together for together in _TOGETHER)
    return is_of_one and all(_is_honest(word) for word in words)


def email_forms(email: str) -> tuple[str, ...]:
    """Return the forms in which an address may be stored, at least one.

    These are the normal form, the lowercase input (used by older versions), and the form with the
    domain in its own script.
    """
    typed = email.strip().lower()
    normal = normal_email(email)
    if not normal:
        return (typed,)
    local, _, domain = normal.partition("@")
    return tuple(dict.fromkeys((normal, typed, f"{local}@{idna.decode(domain)}")))


def ascii_domain(domain: str) -> str:
    """Return a domain as a lowercase A-label, or "" if it is invalid or a lookalike.

    Characters that UTS 46 drops or replaces (zero width, full width, other dots), a trailing dot,
    labels of mixed scripts, and labels that look like ASCII are not accepted.
    """
    text = unicodedata.normalize("NFC", domain.strip()).lower()
    try:
        a_label = idna.encode(text, uts46=True, std3_rules=True).decode()
        shown = idna.decode(a_label)
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        return ""
    as_typed = text if text.isascii() else shown
    if text not in (as_typed, a_label) or a_label.endswith("."):
        return ""
    return a_label if all(_is_honest(label) for label in shown.split(".")) else ""


def listed_domain(domain: str) -> str:
    """Return a domain from the operator's list as its A-label, or "" if it is invalid.

    A leading `@` and a trailing dot are accepted.
    """
    return ascii_domain(domain.strip().removeprefix("@").removesuffix("."))


def _is_honest(label: str) -> bool:
    foreign = [c for c in label if not c.isascii()]
    if not foreign:
        return True
    if any(unicodedata.category(c)[0] not in "LMN" for c in foreign):
        return False
    scripts = {_script(c) for c in label if unicodedata.category(c)[0] == "L"}
    if len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER):
        return False
    if "LATIN" in scripts:
        return not any(
            c in _LIKE_ASCII or "SMALL CAPITAL" in unicodedata.name(c, "") for c in foreign
        )
    return not all(c in _LIKE_ASCII or c.isascii() for c in label)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0]
