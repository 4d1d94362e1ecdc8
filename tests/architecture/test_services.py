"""Every use case is told who asks, and asks the authorization module: read from the source, lest
one be forgotten."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "portal" / "services"
FIRST = (("session",), ("principal", "_principal"))
# What counts as asking: a refusal, a condition that the database applies, or a look-up that does
# both.
ASKS = {
    "authorization.require", "authorization.may", "authorization.allowed_actions",
    "authorization.is_admin", "authorization.usable_servers", "authorization.visible_servers",
    "authorization.usable_within", "authorization.visible_within", "authorization.granted_toolsets",
    "authorization.sign_in_servers", "authorization.open_servers",
    "authorization.own_uses", "servers.queries.find_server",
}  # fmt: skip
WRITES = {"add", "add_all", "delete", "merge", "flush", "commit"}
STATEMENTS_THAT_WRITE = {"delete", "insert", "update"}

# Functions that are not told who asks, each with the reason.
NOBODY_ASKS = {
    "access.principals.check_password": "finds out who asks",
    "access.principals.known_from": "before anybody is known: whose tries are counted apart",
    "access.principals.hash_key": "computes",
    "access.principals.hash_password": "computes",
    "access.principals.judge_keys": (
        "finds out what keys would reach, for a use case that has asked"
    ),
    "access.principals.person_of": "finds out who asks",
    "access.principals.principal_for_key": "finds out who asks",
    "access.principals.principal_for_key_id": (
        "finds out what a key would reach, for a use case that has asked"
    ),
    "access.principals.principal_for_user": "finds out who asks",
    "access.principals.sign_in": "finds out who asks",
    "access.principals.stranger": "finds out who asks",
    "audit.events.changed": "computes",
    "oauth_broker.byok.issued": (
        "finds out whose code it is, for `redeem`, where the code and its verifier decide"
    ),
    "oauth_broker.byok.is_issued": "as `issued`, for the token endpoint of all servers",
    "oauth_server.bearers.is_access_token": "computes",
    "oauth_server.bearers.principal_of": "finds out who asks: a token of an app that is allowed",
    "oauth_server.token_endpoint.redeem": (
        "finds out who asks: a code and its PKCE verifier, or a refresh token, say whose app it is"
    ),
    "oauth_server.token_endpoint.revoke": "whoever has a token may end it",
    "oauth_broker.byok.redeem": (
        "finds out who asks: a code and its PKCE verifier say whose client it is"
    ),
    "credentials.self_service.check_value": "computes",
    "instance_settings.preferences_of": "computes",
    "instance_settings.load_preferences": (
        "every decision depends on it, and nothing of it is secret"
    ),
    "catalog.registry.describe_gateway": "strangers ask; only what an Admin listed is shown",
    "catalog.registry.get_listed": "strangers ask; only what an Admin listed is shown",
    "catalog.registry.get_hub": "strangers ask; only what an Admin listed is shown",
    "catalog.registry.list_entries": "strangers ask; only what an Admin listed is shown",
    "catalog.registry.namespace": "computes",
    "catalog.registry.server_json": "computes, of a row that its caller was allowed to load",
    "instance_settings.settings_hash": "computes",
    "access.sessions.end_session": "whoever has the cookie may end its session",
    "access.sessions.load_session": "runs before it is known who asks",
    "access.sessions.save_session": "writes what the web layer keeps of a browser",
    "access.sessions.touch_session": "runs before it is known who asks",
    "access.sso.begin_sign_in": "finds out who asks",
    "access.sso.complete_sign_in": "finds out who asks",
    "access.sso.list_providers": "what the sign-in page offers to strangers",
    "access.sso.take_answer": "finds out who asks",
    "operations.bootstrap.config_server_id": "computes",
    "tools.calls.kind_of": "computes",
    "audit.trail.filter_of": "computes",
}
# Functions that are told and need not ask, each with the reason.
ONES_OWN = {
    "access.principals.change_password": "one's own, in person, with the current password",
    "access.principals.change_profile": "one's own, in person",
    "access.principals.is_use_noted": "of the key that asks",
    "access.principals.note_key_use": "of the key that asks",
    "access.principals.sign_out": "one's own session",
    "audit.events.record": "what was done is on record whoever did it",
    "credentials.connections.get_result": (
        "of a flow of the browser that asks, told to its own person only"
    ),
    "credentials.connections.give_up": (
        "ends a flow that its browser brought back; nothing is given away"
    ),
    "oauth_server.authorize.decline_app": (
        "ends a flow of the browser that asks, by one's own id; nothing is given away"
    ),
    "oauth_broker.consents.remove_own_app": "one's own rows, by one's own id",
    "oauth_server.apps.sign_out_app": "one's own rows, by one's own id",
    "credentials.self_service.list_own_keys_held": "one's own rows, by one's own id",
    "access.keys.sweep_keys": "deletes only what opens nothing any more",
    "access.users.get_self": "one's own",
    "access.sessions.end_other_sessions": "one's own sessions, by one's own id",
    "access.sessions.end_own_session": "one's own sessions, by one's own id",
    "access.sessions.list_own_sessions": "one's own sessions, by one's own id",
    "access.sessions.sweep_sessions": "deletes only what opens nothing any more",
    "drafts.temporary_servers.delete_expired_servers": "deletes only what opens nothing any more",
    "access.sso.end_at_provider": "one's own session",
    "credentials.providers.clean_up_tokens": "deletes only what opens nothing any more",
    "oauth_server.apps.delete_expired_apps": "deletes only what opens nothing any more",
    "access.teams.list_own_teams": "the teams one is in",
}


@dataclass
class Function:
    """A function of a service module, as its source has it."""

    node: ast.FunctionDef
    is_public: bool
    calls: list[tuple[int, str]] = field(default_factory=list)

    @property
    def writes(self) -> list[int]:
        """The lines that change something through the session."""
        return [
            call.lineno
            for call in ast.walk(self.node)
            if isinstance(call, ast.Call) and _writes(call)
        ]

    @property
    def parameters(self) -> list[str]:
        return [argument.arg for argument in (*self.node.args.posonlyargs, *self.node.args.args)]


def _called(node: ast.Call, module: str, imported: dict[str, str]) -> str:
    """What a call calls, as `module.function`; functions that were imported by name under their
    home."""
    if isinstance(node.func, ast.Name):
        return imported.get(node.func.id, f"{module}.{node.func.id}")
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return f"{imported.get(node.func.value.id, node.func.value.id)}.{node.func.attr}"
    return ""


def _writes(call: ast.Call) -> bool:
    target = call.func
    if not (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "session"
    ):
        return False
    inner = {
        n.func.id
        for n in ast.walk(call)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    return target.attr in WRITES or (
        target.attr == "execute" and bool(inner & STATEMENTS_THAT_WRITE)
    )


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names of a module that were imported, with what they are below `portal.services`."""
    return {
        alias.asname or alias.name: (
            f"{node.module}.{alias.name}".removeprefix("portal.services.").removeprefix("portal.")
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _use_cases() -> frozenset[str]:
    """The modules with use cases: those that the docstring of their package names, and the one of
    settings."""
    found = {"instance_settings"}
    for path in FOLDER.glob("*/__init__.py"):
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        named = re.search(r"Use cases: ([`a-z_,\s]+)\.", told)
        found |= {
            f"{path.parent.name}.{name}"
            for name in re.findall(r"`([a-z_]+)`", named[1] if named else "")
        }
    return frozenset(found)


USE_CASES = _use_cases()


def _functions() -> dict[str, Function]:
    found: dict[str, Function] = {}
    for path in sorted(FOLDER.rglob("*.py")):
        tree = ast.parse(path.read_text())
        module = ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        imported = _imported(tree)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef):
                continue
            public = not node.name.startswith("_") and module in USE_CASES
            calls = [
                (c.lineno, _called(c, module, imported))
                for c in ast.walk(node)
                if isinstance(c, ast.Call)
            ]
            found[f"{module}.{node.name}"] = Function(node, public, calls)
    return found


FUNCTIONS = _functions()
PUBLIC = sorted(name for name, function in FUNCTIONS.items() if function.is_public)


def line_of_asking(name: str, seen: frozenset[str] = frozenset()) -> int | None:
    """The line at which a function first asks, itself or through one that it calls; None where it
    never does."""
    for line, called in sorted(FUNCTIONS[name].calls):
        if called in ASKS:
            return line
        if (
            called in FUNCTIONS
            and called not in seen
            and line_of_asking(called, seen | {name}) is not None
        ):
            return line
    return None


@pytest.mark.parametrize("name", PUBLIC)
def test_a_use_case_is_told_the_session_and_who_asks(name: str) -> None:
    first = FUNCTIONS[name].parameters[:2]
    told = len(first) == 2 and first[0] in FIRST[0] and first[1] in FIRST[1]
    assert told or name in NOBODY_ASKS


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(NOBODY_ASKS) - set(ONES_OWN)))
def test_a_use_case_asks_authorization_before_it_writes(name: str) -> None:
    asked = line_of_asking(name)
    assert asked is not None
    too_early = [line for line in FUNCTIONS[name].writes if line < asked]
    assert too_early == []


def test_what_is_exempt_is_there_and_needs_it() -> None:
    exempt = [*NOBODY_ASKS, *ONES_OWN]
    assert len(exempt) == len(set(exempt))
    assert [name for name in exempt if name not in PUBLIC] == []
    assert [name for name in ONES_OWN if line_of_asking(name) is not None] == []


def test_no_use_case_compares_a_role_by_itself() -> None:
    """Roles are compared in the authorization module (`conventions.md`, 4)."""
    comparing = {
        name
        for name, function in FUNCTIONS.items()
        for node in ast.walk(function.node)
        if isinstance(node, ast.Compare)
        for part in [node.left, *node.comparators]
        if isinstance(part, ast.Attribute)
        and isinstance(part.value, ast.Name)
        and part.value.id == "Role"
    }
    assert comparing == set()
