"""The grid: what each person sees, filters, paging, pieces for htmx, and what it costs."""

from collections.abc import Callable

import pytest

from portal.domain.principals import OPERATOR
from portal.services.access.principals import principal_for_user
from portal.services.credentials import self_service
from portal.store.database import Database
from tests.conftest import NOTES, Client, Write
from tests.support.counting import counted
from tests.support.factories import make_server
from tests.support.html import parse

SignedIn = Callable[[str], Client]
TOKEN = {
    "static_headers": {"X-T": "${TOKEN}"},
    "env_vars": [{"name": "TOKEN", "scope": "user", "description": "Ask the desk"}],
}


def names(client: Client, path: str = "/servers") -> list[str]:
    """The names on the cards, in order."""
    return [link.text.strip() for link in parse(client.get(path)).select("[data-item] .cover")]


def test_each_sees_what_they_may_reach(signed_in: SignedIn, write: Write) -> None:
    """UI-02, ACC-08: Admin and Read-only admin see all, a Member what their team has, others
    nothing."""
    with write() as session:
        make_server(session, "zeta")
        make_server(session, "Alpha")
    assert names(signed_in("ada")) == ["Alpha", "notes", "zeta"]
    assert names(signed_in("vera")) == ["Alpha", "notes", "zeta"]
    assert names(signed_in("mel")) == ["notes"]
    assert names(signed_in("otto")) == []


def test_an_empty_grid_says_what_to_do_next(signed_in: SignedIn) -> None:
    """UI-01: an Admin adds, a Member asks."""
    otto = parse(signed_in("otto").get("/servers"))
    assert "Ask an Admin" in otto.text
    assert not otto.find("a", href="/servers/new")
    assert parse(signed_in("ada").get("/servers?q=nothing-like-it")).find(
        string="No matching servers"
    )


def test_the_card_tells_what_is_missing_until_it_is_set(signed_in: SignedIn, write: Write) -> None:
    """UI-12: a red badge with the names and a way to set them; gone once they are set."""
    with write() as session:
        make_server(session, "needy", allow_all_keys=True, **TOKEN)
    otto = signed_in("otto")
    card = parse(otto.get("/servers")).find(id="server-id-needy")
    assert card is not None
    assert "1 value missing" in card.text
    assert "TOKEN" in card.text
    assert card.find("a", href="/credentials/id-needy")
    with write() as session:
        self_service.save_variables(
            session, principal_for_user(session, "otto", None), "id-needy", {"TOKEN": "x"}
        )
    assert "missing" not in parse(otto.get("/servers")).find(id="server-id-needy").text


def test_only_admin_view_sees_addresses(signed_in: SignedIn) -> None:
    """Origins of URLs are for admin view (1-system.md, 5); nobody sees a path."""
    for name, sees in (("ada", True), ("vera", True), ("mel", False)):
        card = parse(signed_in(name).get("/servers")).find(id=f"server-{NOTES}")
        assert ("127.0.0.1:9" in card.text) is sees
        assert "/notes" not in card.text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=ALPH", ["Alpha"]),
        ("q=100%25", ["percent"]),
        ("q=%25", ["percent"]),
        ("transport=sse", ["old"]),
        ("auth=bearer_token", ["Alpha"]),
        ("auth=none", ["notes", "old", "percent"]),
        ("group=dev", ["Alpha", "old"]),
        ("team=team-crew", ["notes"]),
        ("health=healthy", []),
        ("health=unknown", ["Alpha", "notes", "old", "percent"]),
        ("needs=me", ["Alpha"]),
        ("status=rejected", []),
        ("transport=nonsense", []),
        ("team=nonsense", []),
        ("sort=newest", ["percent", "old", "Alpha", "notes"]),
    ],
)
def test_filters_are_in_the_address(
    signed_in: SignedIn, write: Write, query: str, expected: list[str]
) -> None:
    """UI-04 and its like: each filter narrows, and an unknown word finds nothing rather than
    everything."""
    with write() as session:
        make_server(
            session, "Alpha", auth_type="bearer_token", is_byok=True, mcp_access_groups=["dev"]
        )
        make_server(session, "old", transport="sse", mcp_access_groups=["dev"])
        make_server(session, "percent", description="100% of it")
    assert names(signed_in("ada"), f"/servers?{query}") == expected


def test_pages_follow_one_another_without_gaps(signed_in: SignedIn, write: Write) -> None:
    """Keyset paging: every server once, by name and by time."""
    with write() as session:
        for number in range(100):
            make_server(session, f"s{number:03}")
    ada = signed_in("ada")
    for sort in ("name", "newest"):
        seen: list[str] = []
        path = f"/servers?sort={sort}"
        for _ in range(4):
            page = parse(ada.get(path))
            seen += [link.text.strip() for link in page.select("[data-item] .cover")]
            following = page.select_one("a[rel=next]")
            if following is None:
                break
            path = str(following["href"])
        assert len(seen) == len(set(seen)) == 101
    assert seen[0] == "s099"


def test_htmx_gets_the_results_only(signed_in: SignedIn) -> None:
    """The fragment is the same template's block, and caches are told that the two differ."""
    ada = signed_in("ada")
    piece = ada.get("/servers?q=notes&sort=name&view=cards", headers={"HX-Request": "true"})
    assert "<html" not in piece.get_data(as_text=True)
    assert "HX-Request" in piece.headers["Vary"]
    assert piece.headers["HX-Push-Url"] == "/servers?q=notes"
    restored = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    assert "<html" in ada.get("/servers", headers=restored).get_data(as_text=True)


def test_health_arrives_in_one_request_from_what_is_stored(
    signed_in: SignedIn, write: Write
) -> None:
    """UI-03, HLT-10: the page makes no probe; one request brings every card's chip, of servers one
    may see."""
    with write() as session:
        make_server(session, "hidden")
    mel = signed_in("mel")
    page = parse(mel.get("/servers"))
    assert page.find(id=f"health-{NOTES}").find(string="Checking…")
    poll = page.find(attrs={"data-poll": True})
    assert "load" in poll["hx-trigger"].split(", "), "the chips say Checking… until then"
    url = poll["hx-get"]
    answer = parse(mel.get(f"{url},id-hidden", headers={"HX-Request": "true"}))
    chips = answer.find_all(attrs={"hx-swap-oob": True})
    assert [chip["id"] for chip in chips] == [f"health-{NOTES}"]
    assert "Never checked" in chips[0].text


def test_markup_in_data_stays_text(signed_in: SignedIn, write: Write) -> None:
    """What people type is escaped wherever it is shown."""
    with write() as session:
        make_server(
            session,
            "evil",
            description='<img src=x onerror="alert(1)">',
            mcp_access_groups=["<b>bold</b>"],
        )
    for path in ("/servers", "/servers?view=table", "/servers/id-evil", "/servers/id-evil/edit"):
        page = parse(signed_in("ada").get(path))
        assert not page.find("img", src="x")
        assert not page.find("b", string="bold")


def test_the_number_of_queries_does_not_grow(
    database: Database, signed_in: SignedIn, write: Write
) -> None:
    """A page of servers or three: the page and its fragment send the same statements, whoever
    asks."""
    clients = {name: signed_in(name) for name in ("ada", "vera", "mel")}
    counts: list[dict[str, tuple[int, int]]] = []
    for start, end in ((0, 50), (50, 150)):
        with write() as session:
            for number in range(start, end):
                make_server(
                    session, f"s{number}", allow_all_keys=True, mcp_access_groups=["dev"], **TOKEN
                )
        found = {}
        for name, client in clients.items():
            client.get("/servers")
            with counted(database) as whole:
                assert len(names(client)) >= 10
            with counted(database) as piece:
                client.get("/servers", headers={"HX-Request": "true"})
            found[name] = (len(whole), len(piece))
        counts.append(found)
    assert counts[0] == counts[1]
    assert max(whole for whole, _ in counts[0].values()) <= 20, "a page costs few statements"


def test_operator_is_not_a_person() -> None:
    """Commands act as the operator, who stands for nobody's values."""
    assert OPERATOR.user_id is None
