"""E-mail addresses as they are compared: the domain as IDNA has it (UTS 46), what is before it
under NFKC, and none that only looks like another."""

import re
import unicodedata

import idna

LONGEST = 320
REFUSED = (
    "This e-mail is refused: it is none, or holds characters that make it look like another one. "
    "Type each part in plain letters of one script, without quotes."
)
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
)
"""Scripts that are written together (UTS 39, 5.2, Highly Restrictive)."""
_QUOTING = frozenset('"\\')
_BETWEEN_WORDS = re.compile(
    r"[!-,./:-?\[-`{-~-]+"
)  # ASCII signs, which separate words of a local part
_LIKE_ASCII = frozenset(
    "аеорсухіјѕһԁԛԝӏѵүԍм"  # Cyrillic
    "αικνορτυχγϲϳω"  # Greek
    "օոսցհյզք"  # Armenian
    "ɑɡıȷɩʟɪᴏᴜᴠᴡᴢꜱʏǀƨƽɢʙɴʀɛ"  # Latin letters without an accent that ASCII letters are taken for
)
"""Letters that look like letters or digits of ASCII (UTS 39); a label of nothing else passes for an
ASCII one."""


def domain_of(email: str) -> str:
    """The domain behind the one `@` of an address, as its A-label in small letters; "" for what is
    no plain address."""
    text = email.strip()
    local, _, domain = text.partition("@")
    if (
        not local
        or "@" in domain
        or not text.isprintable()
        or any(c.isspace() for c in text)
        or len(text) > LONGEST
    ):
        return ""
    return ascii_domain(domain) if _is_honest_name(_normal_name(local)) else ""


def normal_email(email: str) -> str:
    """An address as it is stored: small letters, full width and the like as plain characters
    (NFKC), the domain as its A-label; "" for what is no plain address."""
    domain = domain_of(email)
    return f"{_normal_name(email.strip().partition('@')[0])}@{domain}" if domain else ""


def _normal_name(local: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).lower())


def _is_honest_name(local: str) -> bool:
    """Whether what stands before the `@` looks like nothing else: without quotes, each of its words
    in one script."""
    if any(c in _QUOTING or c == "@" or c.isspace() for c in local):
        return False
    words = [word for word in _BETWEEN_WORDS.split(local) if word]
    scripts = {_script(c) for c in local if unicodedata.category(c)[0] == "L"}
    is_of_one = len(scripts) < 2 or any(scripts <= together for together in _TOGETHER)
    return is_of_one and all(_is_honest(word) for word in words)


def email_forms(email: str) -> tuple[str, ...]:
    """The forms under which an address may be stored: as typed, in small letters (so it was done
    once), with the domain as its A-label, and with the domain in its own script. Never empty."""
    typed = email.strip().lower()
    normal = normal_email(email)
    if not normal:
        return (typed,)
    local, _, domain = normal.partition("@")
    return tuple(dict.fromkeys((normal, typed, f"{local}@{idna.decode(domain)}")))


def ascii_domain(domain: str) -> str:
    """A domain as its A-label in small letters; "" for one that is none or that is written to look
    like another.

    Refused are characters that UTS 46 drops or replaces (zero width, full width, other dots), a dot
    at the end, labels of mixed scripts, and labels wholly of letters that pass for ASCII.
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
    """A domain that an operator lists, which may end with a dot or begin with `@`; "" for one that
    is none."""
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
