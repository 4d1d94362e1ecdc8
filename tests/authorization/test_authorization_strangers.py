"""Rule 8: strangers reach the sign-in of servers that leave it to their upstream, and nothing
else."""

from dataclasses import replace

import pytest

from portal.authorization import Action, ServerFacts, may
from portal.domain.principals import STRANGER
from portal.store.models import Server

INSIDE = replace(STRANGER, is_internal=True)


def server(**changes: object) -> ServerFacts:
    columns = {
        "server_id": "s",
        "approval_status": "active",
        "allow_all_keys": False,
        "auth_type": "oauth2",
        "oauth2_flow": None,
        "delegate_auth_to_upstream": True,
        "available_on_public_internet": True,
        "is_public": False,
        "origin": "database",
    }
    return ServerFacts(Server(**{**columns, **changes}), frozenset())


def test_signing_in_is_all_that_a_stranger_may_do() -> None:
    for everything in (server(), server(allow_all_keys=True)):
        assert {action for action in Action if may(INSIDE, action, everything)} & {
            Action.SERVER_SIGN_IN,
            Action.SERVER_RENEW,
            Action.CREDENTIAL_OWN,
            Action.SERVER_UPDATE,
        } == {Action.SERVER_SIGN_IN}


@pytest.mark.parametrize(
    "changes",
    [
        {"delegate_auth_to_upstream": False},
        {"delegate_auth_to_upstream": None},
        {"auth_type": None},
        {"auth_type": "oauth2_token_exchange"},
        {"oauth2_flow": "client_credentials"},
        {"approval_status": "pending_review"},
        {"approval_status": "rejected"},
        {"delegate_auth_to_upstream": False, "allow_all_keys": True},
    ],
)
def test_no_other_server_lets_strangers_in(changes: dict[str, object]) -> None:
    assert may(INSIDE, Action.SERVER_SIGN_IN, server())
    assert not may(INSIDE, Action.SERVER_SIGN_IN, server(**changes))
    assert not may(INSIDE, Action.SERVER_SIGN_IN, None)


def test_the_address_rule_holds_for_strangers() -> None:
    hidden = {"available_on_public_internet": False}
    assert not may(STRANGER, Action.SERVER_SIGN_IN, server(**hidden))
    assert may(INSIDE, Action.SERVER_SIGN_IN, server(**hidden))
    assert may(STRANGER, Action.SERVER_SIGN_IN, server(**hidden, is_public=True))
