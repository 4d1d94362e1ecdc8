"""Where each kind of secret stands: the place that its ciphertext is bound to.

All places are made here, because who re-encrypts a value (`inventory.py`) has to name the very
place that it was sealed for. Changing one makes what is stored unreadable.
"""

from portal.domain.destinations import Route, parts_of
from portal.store.models import Server
from portal.store.oauth_tables import OAuthClientRegistration, OAuthFlow, TemporaryServer
from portal.store.vault import Place


def destination_of(row: Server) -> str:
    """Where a server's secrets are sent: the origin of its URL, or its command."""
    return row.address or f"stdio:{row.command}"


def credential_destination(row: Server) -> str:
    """Where a server's credentials are sent: to the server and to its token endpoint."""
    return f"{destination_of(row)} {hint(row, 'token_url') or ''}"


def hint(row: Server, field_name: str) -> str | None:
    """What may be shown of a sealed URL: its origin."""
    return next((s.hint for s in row.secrets if s.field == field_name), None)


def of_bound_secret(row: Server, field_name: str, name: str, route: Route) -> Place:
    """A value of a server's definition, for where it goes by `route`; an address goes nowhere."""
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
    """The value of a global variable, for where it goes by `route`."""
    return of_bound_secret(row, "env_vars", name, route)


def of_secret(row: Server, field_name: str, name: str) -> Place:
    """A value of a server's definition, as older versions read and write it."""
    destination = credential_destination(row) if field_name == "credentials" else ""
    return Place(
        "definition",
        row.server_id,
        row.incarnation,
        f"{field_name}:{name}",
        destination=destination,
    )


def of_command_test(user_id: str) -> Place:
    """The mark with which a person confirms the test of a command."""
    return Place("command test", "", "", "mark", owner=user_id)


def of_global(row: Server, name: str) -> Place:
    """The value of a global variable, as older versions read and write it."""
    return Place("definition", row.server_id, row.incarnation, f"variable:{name}")


def of_user_variable(row: Server, user_id: str, name: str, destination: str | None = None) -> Place:
    """A person's value of a variable, for the host that the server points to or, where given,
    pointed to."""
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
    """A person's key or tokens for a server, for the host that the server points to or, where
    given, pointed to."""
    return Place(
        "user credential",
        row.server_id,
        row.incarnation,
        kind,
        owner=user_id,
        destination=destination_of(row) if destination is None else destination,
    )


def of_registration(row: Server, kept: OAuthClientRegistration) -> Place:
    """The secret that an authorization server gave the portal as its client."""
    return Place(
        "client registration",
        row.server_id,
        row.incarnation,
        kept.client_id,
        destination=kept.issuer,
    )


def of_shared_token(row: Server, subject: str) -> Place:
    """A token that the portal got by itself."""
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
    """A change that waits for its review."""
    return Place("proposal", row.server_id, row.incarnation, "fields")


def of_import(owner: str) -> Place:
    """A document that a person is about to import."""
    return Place("import draft", "", "", "document", owner=owner)


def of_flow(row: OAuthFlow) -> Place:
    """What a redirect under way has to remember."""
    return Place("oauth flow", row.server_id or "", row.flow_id, row.kind, owner=row.user_id or "")


def of_temporary(kept: TemporaryServer) -> Place:
    """A definition under test."""
    return Place("temporary server", kept.server_id, kept.incarnation, "contents")


def of_id_token(user_id: str) -> Place:
    """What proves to a sign-in provider whose session is to end there."""
    return Place("sign-in", "", "", "id_token", owner=user_id)
