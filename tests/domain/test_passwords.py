"""Passwords that are refused, and e-mails as they are compared."""

import secrets

import pytest

from portal.domain.emails import ascii_domain, email_forms, listed_domain, normal_email
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


@pytest.mark.parametrize(
    ("domain", "wanted"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("a-b.example.com", "a-b.example.com"),
        ("exämple.com", "xn--exmple-cua.com"),
        ("EXÄMPLE.com", "xn--exmple-cua.com"),
        ("XN--exmple-cua.COM", "xn--exmple-cua.com"),
        ("exa\u0308mple.com", "xn--exmple-cua.com"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("例え.jp", "xn--r8jz45g.jp"),
        ("straße.de", "xn--strae-oqa.de"),
    ],
)
def test_domains_have_one_form(domain: str, wanted: str) -> None:
    assert ascii_domain(domain) == wanted
    assert normal_email(f"Mel@{domain}") == f"mel@{wanted}"


@pytest.mark.parametrize(
    "domain",
    [
        "еxample.com",
        "exаmple.com",
        "аррӏе.com",
        "google.сом",
        "xn--80ak6aa92e.com",
        "examplе.com",
        "ｅxample.com",
        "example。com",
        "exam\u200bple.com",
        "exam\u00adple.com",
        "\u202eexample.com",
        "example.com.",
        "exaᴍple.com",
        "ехаmple.com",
        "εxample.com",
        "exa_mple.com",
        "a..b.com",
        "-a.com",
        "",
        "xn--zz-.com",
        "a" * 64 + ".com",
        "exa mple.com",
        "example.com\x00",
        "ⓔxample.com",
        "exɑmple.com",
    ],
)
def test_domains_that_only_look_like_another_are_none(domain: str) -> None:
    assert ascii_domain(domain) == ""
    assert normal_email(f"mel@{domain}") == ""


@pytest.mark.parametrize(
    "email",
    ["", "mel", "@example.com", "a@b@example.com", "a b@example.com", "a\u200b@example.com"],
)
def test_what_is_no_plain_address_is_none(email: str) -> None:
    assert normal_email(email) == ""
    assert email_forms(email) == (email.strip().lower(),)


@pytest.mark.parametrize("email", ["ａｄａ@example.com", "ＡＤＡ@example.com", "ⓐda@example.com"])
def test_what_is_the_same_under_nfkc_is_the_same_person(email: str) -> None:
    assert normal_email(email) == "ada@example.com"
    assert "ada@example.com" in email_forms(email)
    assert email.lower() in email_forms(email), "as it may have been stored once"


@pytest.mark.parametrize(
    "email",
    [
        '"ada"@example.com',
        "а" + "da@example.com",
        "а" + "ԁ" + "а" + "@example.com",
        "ad\\a@example.com",
        "ɑda@example.com",
        "mel.а@example.com",
        "ada＠x@example.com",
        "ada+ае@example.com",
        "ad☺@example.com",
        "ανна@example.com",
    ],
)
def test_what_only_looks_like_another_before_the_at_is_refused(email: str) -> None:
    assert normal_email(email) == ""


@pytest.mark.parametrize(
    "local", ["анна", "анна.2", "jürgen.möller", "山田", "ms_o'neil+x-y", "josé", "mañana%b"]
)
def test_an_honest_name_before_the_at_is_taken(local: str) -> None:
    assert normal_email(f"{local}@example.com") == f"{local}@example.com"


def test_what_an_operator_lists_may_be_written_as_in_dns() -> None:
    assert listed_domain("Example.com.") == listed_domain("@example.com") == "example.com"
    assert listed_domain("еxample.com") == ""


def test_an_address_is_looked_for_under_every_form_it_was_ever_stored_in() -> None:
    assert email_forms("Mel@EXÄMPLE.com") == ("mel@xn--exmple-cua.com", "mel@exämple.com")
    assert email_forms("mel@xn--exmple-cua.com") == ("mel@xn--exmple-cua.com", "mel@exämple.com")
