"""The place that each kind of secret's ciphertext is bound to.

All places are defined here, because re-encryption (`inventory.py`) must use the exact place that a
value was sealed for. Changing one makes stored values unreadable.
"""

from portal.domain.destinations import Route, parts_of
from portal.store.models import Server
from portal.store.oauth_tables import OAuthClientRegistration, OAuthFlow, TemporaryServer
from portal.store.vault import Place


def destination_of(row: Server) -> str:
    """Return where a server's secrets are sent: the origin of its URL, or its command."""
    return row.address or f"stdio:{row.command}"


def credential_destination(row: Server) -> str:
    """Return where a server's credentials are sent: to the server and to its token endpoint."""
    return f"{destination_of(row)} {hint(row, 'token_url') or ''}"


def hint(row: Server, field_name: str) -> str | None:
    """Return the part of a sealed URL that may be shown: its origin."""
    return next((s.hint for s in row.secrets if s.field == field_name), None)


def of_bound_secret(row: Server, field_name: str, name: str, route: Route) -> Place:
    """Return the place of a definition's value for its destination; addresses have none."""
    destination = " ".join(
        route.key(part) for part in parts_of(f"{field_name}.{name}" if name else field_name)
    )
    return Place(
        "bound definition",
        row.server_id,
        row.incarnation,
        f"{field_name}:{name}",
        destination=destination,
    )


def of_bound_global(row: Server, name: str, route: Route) -> Place:
    """Return the place of a global variable's value for its destination by `route`."""
    return of_bound_secret(row, "env_vars", name, route)


def of_secret(row: Server, field_name: str, name: str) -> Place:
    """Return the place of a definition's value as older versions read and write it."""
    destination = credential_destination(row) if field_name == "credentials" else ""
    return Place(
        "definition",
        row.server_id,
        row.incarnation,
        f"{field_name}:{name}",
        destination=destination,
    )


def of_command_test(user_id: str) -> Place:
    """Return the place of the mark with which a user confirms the test of a command."""
    return Place("command test", "", "", "mark", owner=user_id)


def of_global(row: Server, name: str) -> Place:
    """Return the place of a global variable's value as older versions read and write it."""
    return Place("definition", row.server_id, row.incarnation, f"variable:{name}")


def of_user_variable(row: Server, user_id: str, name: str, destination: str | None = None) -> Place:
    """Return the place of a user's variable, for the server's host or `destination`."""
    return Place(
        "user variable",
        row.server_id,
        row.incarnation,
        name,
        owner=user_id,
        destination=destination_of(row) if destination is None else destination,
    )


def of_user_credential(
    row: Server, user_id: str, kind: str, destination: str | None = None
) -> Place:
    """Return the place of a user's key or tokens, for the server's host or `destination`."""
    return Place(
        "user credential",
        row.server_id,
        row.incarnation,
        kind,
        owner=user_id,
        destination=destination_of(row) if destination is None else destination,
    )


def of_registration(row: Server, kept: OAuthClientRegistration) -> Place:
    """Return the place of the secret that an authorization server issued to the portal."""
    return Place(
        "client registration",
        row.server_id,
        row.incarnation,
        kept.client_id,
        destination=kept.issuer,
    )


def of_shared_token(row: Server, subject: str) -> Place:
    """Return the place of a token that the portal requested itself."""
    destination = credential_destination(row)
    return Place(
        "shared token",
        row.server_id,
        row.incarnation,
        "access",
        owner=subject,
        destination=destination,
    )


def of_proposal(row: Server) -> Place:
    """Return the place of a change that waits for review."""
    return Place("proposal", row.server_id, row.incarnation, "fields")


def of_import(owner: str) -> Place:
    """Return the place of a document that a user is about to import."""
    return Place("import draft", "", "", "document", owner=owner)


def of_flow(row: OAuthFlow) -> Place:
    """Return the place of the data of a pending redirect."""
    return Place("oauth flow", row.server_id or "", row.flow_id, row.kind, owner=row.user_id or "")


def of_temporary(kept: TemporaryServer) -> Place:
    """Return the place of a definition under test."""
    return Place("temporary server", kept.server_id, kept.incarnation, "contents")


def of_id_token(user_id: str) -> Place:
    """Return the place of the ID token that identifies a session for sign-out at its provider."""
    return Place("sign-in", "", "", "id_token", owner=user_id)
