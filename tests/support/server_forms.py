"""The server form in tests: as it stands there, chosen in, saved; and what is stored then."""

from collections.abc import Callable
from typing import Any

from bs4 import Tag

from tests.conftest import Client
from tests.support.browsing import text_of
from tests.support.html import filled, parse

As = Callable[[str | None], Client]
NEW = "/servers/new"
EDIT = "/servers/id-s/edit"


def form_of(answer: Any, status: int = 200) -> Any:
    return parse(answer, status).find("form", attrs={"data-guard": True})


def choosing(client: Client, **typed: Any) -> Any:
    """The form as it comes back, without JavaScript, once something was chosen in it."""
    return form_of(client.post(NEW, data=filled(form_of(client.get(NEW)), add="form", **typed)))


def shows(form: Any, name: str) -> bool:
    """Whether the form has a field of that name that is not hidden."""
    field = form.find(attrs={"name": name})
    return isinstance(field, Tag) and not any(part.has_attr("hidden") for part in field.parents)


def shown_text(form: Any) -> str:
    """The words of the form, the hidden parts aside."""
    for part in form.select("[hidden], template"):
        part.extract()
    return text_of(form)


def save(client: Client, path: str = EDIT, status: int = 303, **typed: Any) -> Any:
    answer = client.post(path, data=filled(form_of(client.get(path)), save="yes", **typed))
    assert answer.status_code == status, text_of(parse(answer, answer.status_code))[:900]
    return answer


def stored(client: As, server_id: str = "id-s") -> dict[str, Any]:
    found: dict[str, Any] = client("ada").get(f"/v1/mcp/server/{server_id}").get_json()
    return found


def by_name(client: As, name: str) -> dict[str, Any]:
    return next(
        s for s in client("ada").get("/v1/mcp/server").get_json() if s["server_name"] == name
    )
