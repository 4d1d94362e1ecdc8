"""Emails as they are compared."""

import pytest

from portal.domain.emails import ascii_domain, email_forms, listed_domain, normal_email


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
