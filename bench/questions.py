"""The requests of `make bench`: to the portal with few and many servers, and to bare Flask."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping

from bench.measuring import Target
from bench.running import Running
from bench.seeding import ADMIN, MEMBER, NARROW, PASSWORD, SIGN_INS, Seeded
from bench.wire import Request, ask_once
from portal.services.servers.grid import PAGE_SIZE

Make = Callable[[int], Request]
FRAGMENT = {"HX-Request": "true"}
_COLD_PAGES = 200


def page_of(user_id: str) -> dict[str, str]:
    """Return the headers of a user's browser."""
    return {"Cookie": f"portal={Seeded.cookie(user_id)}"}


def api_of(user_id: str) -> dict[str, str]:
    """Return the headers of a user's program."""
    return {"Authorization": f"Bearer {Seeded.key(user_id)}"}


def pages(server: Running, seeded: Seeded) -> dict[str, Target]:
    """Return the targets that are measured with both sizes."""
    asked: dict[str, tuple[str, Mapping[str, str]]] = {
        "grid": ("/servers", page_of(ADMIN)),
        "grid, Member with 60 %": ("/servers", page_of(MEMBER)),
        "grid, Member with 20 servers": ("/servers", page_of(NARROW)),
        "its last page": (f"/servers?cursor={seeded.last_page}", page_of(ADMIN)),
        "its fragment": ("/servers", page_of(ADMIN) | FRAGMENT),
        "JSON page of 50": ("/v1/mcp/server?limit=50", api_of(ADMIN)),
        "JSON page of 50, Member": ("/v1/mcp/server?limit=50", api_of(MEMBER)),
    }
    return {
        name: Target.get(name, server, path, dict(headers))
        for name, (path, headers) in asked.items()
    } | {
        "credentials save": Target(
            "credentials save", server, _save(api_of(ADMIN), "/v1/mcp/server/{}/user-env-vars")
        ),
    }


def cold(server: Running, path: str, headers: Mapping[str, str]) -> Target:
    """Return a target for another page of the grid every time, so that no cache helps."""

    def make(number: int) -> Request:
        last = f"server_{number % _COLD_PAGES * PAGE_SIZE + PAGE_SIZE - 1:05}"
        return Request(f"{path}?cursor={last}~{last}", headers)

    return Target("grid, another page every time", server, make)


def unchanged(target: Target) -> Target | None:
    """Return `target` for a client with a current copy; None if the response has no ETag."""
    request = target.make(0)
    etag = asyncio.run(ask_once(target.server.port, request)).headers.get("etag")
    if not etag:
        return None
    known = Request(request.path, {**request.headers, "If-None-Match": etag})
    return Target(f"{target.name}, unchanged (304)", target.server, lambda _: known, (304,))


def sign_in(server: Running) -> Target:
    """Return a target for password sign-in, each time by another user from another address.

    The forms are fetched in advance.
    """
    forms = asyncio.run(_forms(server.port))

    def make(number: int) -> Request:
        cookie, token = forms[number % SIGN_INS]
        headers = {"Cookie": cookie, "X-Forwarded-For": f"198.51.100.{number % SIGN_INS}"}
        email = Seeded.email(number % SIGN_INS)
        return Request.form("/login", headers, email=email, password=PASSWORD, csrf_token=token)

    return Target("sign-in", server, make, (303,))


async def _forms(port: int) -> list[tuple[str, str]]:
    return [await sign_in_form(port) for _ in range(SIGN_INS)]


async def sign_in_form(port: int) -> tuple[str, str]:
    """Return the cookie and the CSRF token of a sign-in form."""
    answer = await ask_once(port, Request("/login"))
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', answer.text)
    assert token is not None, answer.text
    return answer.headers["set-cookie"].partition(";")[0], token[1]


def _save(headers: Mapping[str, str], path: str) -> Make:
    def make(number: int) -> Request:
        # The numbers of servers that require a value end in 0, 1 or 2.
        server_id = f"server_{number % 9 * 10 + number % 3:05}"
        return Request.json(
            path.format(server_id), headers, json.dumps({"values": {"TOKEN": f"value {number}"}})
        )

    return make


def bare(many: Running, thousand: Running) -> dict[str, Target]:
    """Return the targets of bare Flask, by the names of the portal's."""

    def signs_in(number: int) -> Request:
        return Request.form("/login", {}, email=Seeded.email(number % SIGN_INS), password=PASSWORD)

    return {
        "grid": Target.get("bare grid", many, "/"),
        "grid, another page every time": cold(many, "/page", {}),
        "its fragment": Target.get("bare fragment", many, "/fragment"),
        "JSON page of 50": Target.get("bare page of 50", many, "/list?limit=50"),
        "credentials save": Target("bare save", many, _save({}, "/save/{}")),
        "sign-in": Target("bare sign-in", many, signs_in, (303,)),
        "JSON list of 1,000": Target.get("bare list", thousand, "/list"),
        "status over 1,000": Target.get("bare status", thousand, "/status"),
    }


def long_answers(thousand: Running) -> dict[str, Target]:
    """Return the targets with the longest responses, with a thousand servers."""
    everything = Target.get("JSON list of 1,000", thousand, "/v1/mcp/server", api_of(ADMIN))
    status = Target.get(
        "status over 1,000", thousand, "/v1/mcp/user-env-vars/status", api_of(ADMIN)
    )
    return {target.name: target for target in (everything, status)}
