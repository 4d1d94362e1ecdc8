"""Requests with secrets in them that the portal refuses: with 400, 403, 404, 409, 412, 413, 415 and
422."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.security.callers import Caller
from tests.support.security.planting import AWS, EXCHANGE, Planter

Request = tuple[Caller, str, str, int, dict[str, Any]]
Form = tuple[Caller, str, int, dict[str, str]]


def _fresh(planter: Planter, what: str) -> dict[str, Any]:
    """A whole definition with a marker in each secret; the caller of it breaks one thing."""
    secret = planter.sealed
    return {
        "server_name": "fresh",
        "transport": "http",
        "url": f"http://127.0.0.1:9/{secret(f'{what}: url')}",
        "auth_type": "bearer_token",
        "credentials": {"auth_value": secret(f"{what}: auth_value")},
        "static_headers": {"X-Key": secret(f"{what}: header")},
        "env": {"TOKEN": secret(f"{what}: env")},
        "env_vars": [{"name": "REGION", "value": secret(f"{what}: global"), "scope": "global"}],
        "args": [secret(f"{what}: args")],
    }


BREAKS: dict[str, tuple[int, dict[str, Any]]] = {
    "a bad name": (400, {"server_name": "has-dash"}),
    "a taken name": (409, {"server_name": "a_echo"}),
    "a taken id": (400, {"server_id": "a-echo"}),
    "an unknown transport": (422, {"transport": "carrier pigeon"}),
    "a wrong type": (422, {"timeout": "soon"}),
    "a command that is not allowed": (400, {"transport": "stdio", "command": "bash"}),
    "no address": (422, {"url": None}),
    "a header of the connection": (400, {"static_headers": {"Host": "x"}}),
    "an id with a slash": (400, {"server_id": "a/b"}),
}


def over_the_api(planter: Planter) -> Iterator[Request]:
    """Refusals of the API, with the secret where the fault is and beside it."""
    callers = planter.world.callers
    sealed = planter.sealed
    admin = callers["k-admin"]
    member = callers["k-member"]
    for what, (status, change) in BREAKS.items():
        yield admin, "POST", "/v1/mcp/server", status, {"json": {**_fresh(planter, what), **change}}
    yield member, "POST", "/v1/mcp/server", 403, {"json": _fresh(planter, "by a member")}
    yield callers["nobody"], "POST", "/v1/mcp/server", 401, {"json": _fresh(planter, "by nobody")}
    faults: dict[str, tuple[int, dict[str, Any]]] = {
        "url with user-info": (400, {"url": f"http://user:{sealed('user-info')}@127.0.0.1/"}),
        "url with a space": (400, {"url": f"http://127.0.0.1/ {sealed('spaced url')}"}),
        "url of another kind": (400, {"token_url": f"ftp://127.0.0.1/{sealed('ftp url')}"}),
        "header with a line break": (
            400,
            {"static_headers": {"X-Key": f"{sealed('broken header')}\n"}},
        ),
        "header of another type": (422, {"static_headers": {"X-Key": [sealed("listed header")]}}),
        "credential of another type": (
            422,
            {"credentials": {"auth_value": {"x": sealed("nested credential")}}},
        ),
        "value of another type": (
            422,
            {"env_vars": [{"name": "REGION", "value": [sealed("listed global")]}]},
        ),
        "args of another type": (422, {"args": {"x": sealed("args as object")}}),
        "env with a forbidden name": (400, {"env": {"LD_PRELOAD": sealed("forbidden env")}}),
        "a text for a number": (422, {"timeout": sealed("timeout")}),
        "a text for a word": (422, {"auth_type": sealed("auth_type")}),
        "too long": (422, {"url": f"http://127.0.0.1/{sealed('long url')}{'x' * 5000}"}),
    }
    for what, (status, change) in faults.items():
        yield admin, "POST", "/v1/mcp/server", status, {"json": {**_fresh(planter, what), **change}}
        yield (
            admin,
            "PUT",
            "/v1/mcp/server",
            status,
            {"json": {"server_id": "a-personal", **change}},
        )
    yield from _refused_changes(planter)
    yield from _refused_values(planter)
    text = json.dumps(_fresh(planter, "broken JSON"))
    for body, kind, status in (
        (text[:-1], "application/json", 422),
        (text, "text/plain", 415),
        (f"[{text}]", "application/json", 422),
        (text.replace('"url"', '"url": 1, "url"'), "application/json", 422),
        (text[:-1] + ', "x": "' + "y" * (2 * 1024 * 1024) + '"}', "application/json", 413),
        (text[:-1] + ', "x": "\\ud800"}', "application/json", 422),
    ):
        yield admin, "POST", "/v1/mcp/server", status, {"data": body, "content_type": kind}


def _refused_changes(planter: Planter) -> Iterator[Request]:
    admin = planter.world.callers["k-admin"]
    sealed = planter.sealed
    path = "/v1/mcp/server"
    stale = {
        **_fresh(planter, "an old version"),
        "server_id": "a-personal",
        "server_name": "a_personal",
        "version": 99,
    }
    yield admin, "PUT", path, 409, {"json": stale}
    moving = {"server_id": "a-personal", "url": f"http://127.0.0.2/{sealed('moving url')}"}
    yield admin, "PUT", path, 409, {"json": moving}
    unknown = {**_fresh(planter, "an unknown id"), "server_id": "no-such-id"}
    yield admin, "PUT", path, 404, {"json": unknown}
    yield (
        planter.world.callers["k-reader"],
        "PUT",
        path,
        403,
        {"json": {**unknown, "server_id": "a-personal"}},
    )
    password = {"email": "new1@example.com", "password": sealed("password of a taken e-mail")}
    yield admin, "POST", "/v1/users", 409, {"json": password}
    yield (
        admin,
        "POST",
        "/v1/users",
        422,
        {"json": {"email": 5, "password": sealed("password beside a fault")}},
    )
    yield (
        admin,
        "POST",
        "/v1/users",
        422,
        {"json": {"email": "a@b", "password": [sealed("listed password")]}},
    )


def _refused_values(planter: Planter) -> Iterator[Request]:
    callers = planter.world.callers
    sealed = planter.sealed
    values = "/v1/mcp/server/a-echo/user-env-vars"
    key = "/v1/mcp/server/a-byok/user-credential"
    member = callers["k-member"]
    yield (
        member,
        "POST",
        values,
        400,
        {"json": {"values": {"CORP_TOKEN": f"{sealed('value with a break')}\n"}}},
    )
    yield (
        member,
        "POST",
        values,
        400,
        {"json": {"values": {"CORP_TOKEN": sealed("long value") + "x" * 9_000}}},
    )
    yield (
        member,
        "POST",
        values,
        422,
        {"json": {"values": {"CORP_TOKEN": [sealed("listed value")]}}},
    )
    yield member, "POST", values, 422, {"json": {"values": [sealed("values as list")]}}
    yield member, "POST", values, 422, {"json": {"CORP_TOKEN": sealed("value at the top")}}
    yield (
        callers["k-outsider"],
        "POST",
        values,
        403,
        {"json": {"values": {"CORP_TOKEN": sealed("value of an outsider")}}},
    )
    yield member, "POST", key, 400, {"json": {"credential": f"{sealed('key with a break')}\n"}}
    yield member, "POST", key, 422, {"json": {"credential": [sealed("listed key")]}}
    yield (
        member,
        "POST",
        key,
        422,
        {"json": {"credential": sealed("key beside a fault"), "save": "no"}},
    )
    yield (
        callers["k-outsider"],
        "POST",
        key,
        403,
        {"json": {"credential": sealed("key of an outsider")}},
    )
    yield (
        callers["k-team"],
        "POST",
        key,
        400,
        {"json": {"credential": sealed("key of a key of nobody")}},
    )
    not_byok = "/v1/mcp/server/a-echo/user-credential"
    yield (
        member,
        "POST",
        not_byok,
        400,
        {"json": {"credential": sealed("key for a server that takes none")}},
    )
    wrong = f"sk-{sealed('unknown API key')}"
    for headers in (
        {"Authorization": f"Bearer {wrong}"},
        {"X-API-Key": wrong},
        {"Authorization": f"Basic {wrong}"},
    ):
        stranger = Caller("stranger", callers["k-unknown"].client, headers)
        yield stranger, "GET", "/v1/me", 401, {}


def _form(planter: Planter, what: str) -> dict[str, str]:
    """A whole form with a marker in each secret; the caller of it breaks one thing."""
    secret = planter.sealed
    urls = {
        name: f"http://127.0.0.1:9/{secret(f'{what}: {name}')}"
        for name in (
            "url",
            "authorization_url",
            "token_url",
            "registration_url",
            "token_exchange_endpoint",
        )
    }
    plain = ("auth_value", "args", "scopes", *EXCHANGE, *AWS)
    return {
        "server_name": "fresh",
        "transport": "http",
        "auth_type": "bearer_token",
        "oauth2_flow": "",
        **urls,
        **{name: secret(f"{what}: {name}") for name in plain},
        "headers-0-name": "X-Key",
        "headers-0-value": secret(f"{what}: header"),
        "variables-0-name": "REGION",
        "variables-0-scope": "global",
        "variables-0-value": secret(f"{what}: global"),
        "env-0-name": "TOKEN",
        "env-0-value": secret(f"{what}: env"),
        "save": "yes",
    }


def through_pages(planter: Planter) -> Iterator[Form]:
    """Refusals of forms, and forms that come back for another reason."""
    callers = planter.world.callers
    sealed = planter.sealed
    admin = callers["admin"]
    member = callers["member"]
    for what, status, change in (
        ("no name", 422, {"server_name": ""}),
        ("a bad name", 422, {"server_name": "has-dash"}),
        ("a taken name", 422, {"server_name": "a_echo"}),
        ("a bad address", 422, {"url": f"ftp://{sealed('ftp')}"}),
        ("an unknown sign-in", 422, {"auth_type": "telepathy"}),
        ("a bad time limit", 422, {"timeout": "soon"}),
        ("OAuth without a name", 422, {"auth_type": "oauth2", "server_name": ""}),
        ("AWS without a name", 422, {"auth_type": "aws_sigv4", "server_name": ""}),
        (
            "an exchange without a name",
            422,
            {"auth_type": "oauth2_token_exchange", "server_name": ""},
        ),
        ("a command that is not allowed", 422, {"transport": "stdio", "command": "bash"}),
        ("a bad header", 422, {"headers-0-value": f"{sealed('bad header')}\x01"}),
        (
            "a bad environment",
            422,
            {"env-0-name": "LD_PRELOAD", "transport": "stdio", "command": "python3"},
        ),
        (
            "an OpenAPI document without a name",
            422,
            {"spec_path": f"http://x/{sealed('spec_path')}", "server_name": ""},
        ),
    ):
        yield admin, "/servers/new", status, {**_form(planter, f"page, {what}"), **change}
    rows = {k: v for k, v in _form(planter, "page, one row more").items() if k != "save"}
    yield admin, "/servers/new", 200, {**rows, "add": "header"}
    yield from _refused_edits(planter)
    yield admin, "/servers/test", 200, _form(planter, "page, test")
    yield (
        admin,
        "/servers/test",
        200,
        {**_form(planter, "page, test without a name"), "server_name": ""},
    )
    yield member, "/servers/new", 404, _form(planter, "page, by a member")
    page = next(i for i in planter.ids if not i.startswith("a-"))
    yield (
        member,
        f"/credentials/{page}",
        422,
        {"value-CORP_TOKEN": f"{sealed('page, value with a break')}\x01"},
    )
    yield (
        member,
        f"/credentials/{page}",
        422,
        {"value-CORP_TOKEN": sealed("page, long value") + "x" * 9_000},
    )
    yield member, "/credentials/a-byok/key", 422, {"key": f"{sealed('page, key with a break')}\x01"}
    yield (
        member,
        "/credentials/a-echo/key",
        422,
        {"key": sealed("page, key for a server that takes none")},
    )
    yield (
        callers["outsider"],
        f"/credentials/{page}",
        404,
        {"value-CORP_TOKEN": sealed("page, value of an outsider")},
    )
    yield from _refused_passwords(planter)


def _refused_edits(planter: Planter) -> Iterator[Form]:
    admin = planter.world.callers["admin"]
    form = _form(planter, "page, edit")
    edit = {**form, "server_name": "a_personal", "alias": "a_personal", "auth_type": "basic"}
    kept = {k: v for k, v in edit.items() if k != "url"} | {"url__mode": "keep"}
    path = "/servers/a-personal/edit"
    yield admin, path, 409, {**kept, "version": "99"}
    yield admin, path, 422, {**kept, "server_name": ""}
    moving = {k: v for k, v in edit.items() if k != "auth_value"}
    yield (
        admin,
        path,
        422,
        {
            **moving,
            "url": f"http://127.0.0.2/{planter.sealed('page, moving')}",
            "url__mode": "replace",
        },
    )
    yield planter.world.callers["reader"], path, 404, {**kept, "version": "1"}


def _refused_passwords(planter: Planter) -> Iterator[Form]:
    callers = planter.world.callers
    sealed = planter.sealed
    wrong = {"email": "mel@example.com", "password": sealed("page, wrong password")}
    yield callers["nobody"], "/login", 422, wrong
    yield (
        callers["nobody"],
        "/login",
        422,
        {"email": "", "password": sealed("page, password without an e-mail")},
    )
    new = sealed("page, new password")
    change = {
        "current_password": sealed("page, wrong current password"),
        "new_password": new,
        "repeat_password": new,
    }
    yield callers["member"], "/profile/password", 422, change
    yield (
        callers["member"],
        "/profile/password",
        422,
        {**change, "repeat_password": sealed("page, other password")},
    )
    user = {
        "email": "mel@example.com",
        "role": "internal_user",
        "password": sealed("page, taken e-mail"),
        "save": "yes",
    }
    yield callers["admin"], "/admin/users/new", 422, user
    yield callers["admin"], "/admin/users/new", 422, {**user, "email": "no e-mail"}
    yield callers["admin"], "/admin/users/guest/password", 422, {"password": sealed("short")[:8]}
