"""Passwords that are refused."""

import secrets

import pytest

from portal.domain.errors import InvalidInput
from portal.domain.passwords import check_new_password

MELANIE = ("melanie.smith@widgets.example", "Mélanie O’Neill")


@pytest.mark.parametrize(
    "password",
    [
        "password123",
        "Password1234!",
        "P@ssw0rd2024",
        "qwertyuiop",
        "1234567890",
        "aaaaaaaaaa",
        "abcdefghij",
        "letmein2024!",
        "Summer2024!",
        "Welcome2026!",
        "iloveyou123",
        "trustno1trustno1",
        "monkeymonkey",
        "zaq12wsxcde3",
        "administrator",
        "drowssap321",
        "aaaaaaaaaa" * 50,
        "correcthorsebatterystaple",
        "Correct-Horse-Battery-Staple",
        "correct horse battery staple 1",
        "Summer2026!!",
        "Sommer2026!!",
        "Monday2026!!",
        "2026-Winter!!",
        "Acme2026!!",
        "Initech!2025",
        "Globex2026!!",
        "McpPortal2026!!",
        "mcp-portal-2026!",
        "MCP Portal 2026",
        "qwertzuiop2026",
        "1qaz2wsx!2026",
        "Company-2026!!",
        "asdfghjkl;2026",
    ],
)
def test_common_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match=r"too easy to guess.*words"):
        check_new_password(password, (), field="password")


@pytest.mark.parametrize(
    "password",
    [
        "melanie-lives-4711-here",
        "xq7 MELANIE zw9 kv3",
        "m.e.l.a.n.i.e 4711 zw9",
        "xq7Mélanie!zw9kv3",
        "oneill-zw9-kv3-xq7",
        "m3l4n1e-zw9-kv3-xq7",
        "zw9 eInAlEm kv3 xq7",
        "zw9!31n4l3m!kv3!xq7",
        "$m!th zw9 kv3 xq7",
        "One1lL-zw9-kv3-xq7",
        "smith and nine red kites",
        "widgets-zw9-kv3-xq7",
        "melanie.smith@widgets.example",
        "ｍｅｌａｎｉｅ zw9 kv3",
    ],
)
def test_a_password_that_says_who_one_is_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match="your email or name") as caught:
        check_new_password(password, MELANIE, field="new_password")
    assert caught.value.field == "new_password"


@pytest.mark.parametrize(
    "password",
    [
        "correct horse SECRET staple",
        "kT8!x9Qz2wLm",
        "vier bunte Hunde am See",
        "x" * 9 + "Qz7!" * 120,
        "猫が窓で本を読む夜です",
    ],
)
def test_other_passwords_are_taken(password: str) -> None:
    check_new_password(password, MELANIE)


def test_passwords_that_were_generated_are_taken() -> None:
    """One-time passwords, and those of password managers, at any length that has enough guesses."""
    for length in (9, 12, 15, 18, 24):
        for _ in range(40):
            check_new_password(secrets.token_urlsafe(length), MELANIE)


@pytest.mark.parametrize(
    ("password", "said"),
    [("short", "10 characters or more"), ("x" * 513, "512 characters or fewer")],
)
def test_the_length_is_told(password: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        check_new_password(password, ())
