"""Secrets at rest: what opens, and that everything else reads as absent, with a warning and without
the secret."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.store.vault import Place, Vault

OLD = b"o" * 32
NEW = b"n" * 32
PLACE = Place(
    "definition", "server-1", "incarnation-1", "static_headers:X-Key", "owner-1", "https://host"
)
TEXT = "SECRET pässword"
MOVED = {
    "another purpose": replace(PLACE, purpose="user variable"),
    "another server": replace(PLACE, server_id="server-2"),
    "another incarnation of the server": replace(PLACE, incarnation="incarnation-2"),
    "another field": replace(PLACE, field="static_headers:X-Other"),
    "another owner": replace(PLACE, owner="owner-2"),
    "another destination": replace(PLACE, destination="https://evil"),
}


@pytest.fixture
def vault() -> Vault:
    return Vault({"k1": OLD})


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, in which after each test stands one warning, without the secret."""
    yield caplog
    told = [record for record in caplog.get_records("call") if record.name == "portal.vault"]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert "SECRET" not in told[0].getMessage()
    assert "server-" in told[0].getMessage()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_opens_again(text: str) -> None:
    vault = Vault({"k1": OLD})
    assert vault.open(vault.seal(text, PLACE), PLACE) == text


def test_nothing_opens_to_nothing_without_a_word(
    vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    assert vault.open(None, PLACE) is None
    assert not caplog.records


def test_the_same_text_is_sealed_differently_each_time(vault: Vault) -> None:
    sealed = {vault.seal(TEXT, PLACE) for _ in range(50)}
    assert len(sealed) == 50
    assert all(b"SECRET" not in one for one in sealed)


@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED.keys())
def test_a_ciphertext_opens_in_no_other_place(
    vault: Vault, moved: Place, warnings: pytest.LogCaptureFixture
) -> None:
    assert vault.open(vault.seal(TEXT, PLACE), moved) is None


def test_parts_of_a_place_do_not_run_into_one_another(
    vault: Vault, warnings: pytest.LogCaptureFixture
) -> None:
    sealed = vault.seal(TEXT, replace(PLACE, server_id="server-1", incarnation="2x"))
    assert vault.open(sealed, replace(PLACE, server_id="server-12", incarnation="x")) is None


def test_another_key_under_the_same_id_opens_nothing(
    vault: Vault, warnings: pytest.LogCaptureFixture
) -> None:
    assert Vault({"k1": NEW}).open(vault.seal(TEXT, PLACE), PLACE) is None


def test_a_key_that_left_the_ring_opens_nothing(
    vault: Vault, warnings: pytest.LogCaptureFixture
) -> None:
    sealed = vault.seal(TEXT, PLACE)
    ring = Vault({"k2": NEW})
    assert not ring.knows_key_of(sealed)
    assert ring.open(sealed, PLACE) is None


@pytest.mark.parametrize("position", [0, 1, 2, 5, 20, -1])
def test_a_changed_byte_opens_nothing(
    vault: Vault, position: int, warnings: pytest.LogCaptureFixture
) -> None:
    sealed = bytearray(vault.seal(TEXT, PLACE))
    sealed[position] ^= 1
    assert vault.open(bytes(sealed), PLACE) is None


@pytest.mark.parametrize(
    "broken", [b"", b"\x01", b"\x01\xff", b"\x02\x02k1", b"\x01\x02k1short", b"\x01\x02\xff\xfe"]
)
def test_bytes_that_are_no_ciphertext_open_to_nothing(
    vault: Vault, broken: bytes, warnings: pytest.LogCaptureFixture
) -> None:
    assert vault.open(broken, PLACE) is None


def test_a_ring_of_two_seals_under_the_newest_and_opens_both(vault: Vault) -> None:
    ring = Vault({"k2": NEW, "k1": OLD})
    before = vault.seal(TEXT, PLACE)
    after = ring.seal(TEXT, PLACE)
    assert ring.open(before, PLACE) == ring.open(after, PLACE) == TEXT
    assert not vault.knows_key_of(after)
    assert Vault({"k2": NEW}).open(after, PLACE) == TEXT


def test_a_place_that_holds_no_secret_shows_itself_and_a_vault_does_not(vault: Vault) -> None:
    assert "ooooo" not in repr(vault)
    assert "ooooo" not in str(vars(vault))


@pytest.mark.parametrize("broken", [b"", b"\x01"])
def test_telling_set_from_lost_does_not_fall_over_broken_bytes(vault: Vault, broken: bytes) -> None:
    assert not vault.knows_key_of(broken)
