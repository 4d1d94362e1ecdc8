"""The form of a server whose sign-in is tried before it is saved: what is typed comes back with the
person.

What is secret does not go back to the page: it is held for 300 s, and a box that is left empty
stands for it.
"""

from collections.abc import Mapping
from typing import Any

from flask import Response, flash, g, request, url_for
from werkzeug.datastructures import MultiDict

from portal.domain.errors import Conflict, PortalError
from portal.services.drafts import sign_in
from portal.services.drafts.sign_in import Draft
from portal.services.servers.stored import Stored
from portal.web.context import commit_now
from portal.web.forms.servers import ServerForm
from portal.web.oauth.browsers import bind, new_or_bound_browser
from portal.web.rendering import onward

_NOT_TYPED = ("csrf_token", "draft", "save", "add", "sign_in")
_SAID = {
    "declined": "You did not allow it at the provider. Nothing was fetched.",
    "changed": "The definition or its provider changed while you signed in. Sign in once more.",
    "other_issuer": "Another provider answered than the one that was asked. Nothing was fetched.",
    "unreachable": "The provider did not answer. Try again in a moment.",
    "refused_by_rules": (
        "The token breaks a rule of this server (token validation), so it was not taken."
    ),
}


def opened_draft() -> Draft | None:
    """The draft that the request names, if it is the caller's and still held; what is typed is made
    whole with it."""
    draft_id = request.values.get("draft", "")[:128]
    draft = sign_in.get_draft(g.session, g.principal, draft_id) if draft_id else None
    if draft is not None:
        g.typed = _merged(draft)
    return draft


def is_over() -> bool:
    """Whether the request names a draft that is not held any more."""
    return bool(request.values.get("draft")) and "typed" not in g


def depart(form: ServerForm, stored: Stored | None, draft: Draft | None) -> Response:
    """Hold what is typed, and go to the provider. Raises what the definition or the provider gives
    rise to."""
    server_id = stored.view.server_id if stored else None
    typed = [
        (name, text) for name, text in _typed(draft).items(multi=True) if name not in _NOT_TYPED
    ]
    draft_id = sign_in.hold(
        g.session,
        g.principal,
        form.fields(),
        typed,
        draft_id=draft.draft_id if draft else None,
        server_id=server_id,
    )
    commit_now()  # from here on it is kept, whatever the provider answers
    g.draft_id = draft_id
    browser = new_or_bound_browser()
    back = url_for("servers.edit", server_id=server_id, draft=draft_id) if server_id else None
    departure = sign_in.begin(
        g.session,
        g.principal,
        draft_id,
        browser=browser,
        back=back or url_for("servers.create", draft=draft_id),
    )
    message = "You sign in there, and come back to the form with the tools. Nothing is saved yet."
    response = onward(departure.url, f"Continue to {departure.host}", message)
    response.headers["Referrer-Policy"] = "no-referrer"
    return bind(response, browser)


def keep_typed(draft: Draft | None) -> None:
    """Hold what is typed while a question about it is open, so that nothing has to be typed
    again."""
    typed = [
        (name, text) for name, text in _typed(draft).items(multi=True) if name not in _NOT_TYPED
    ]
    g.draft_id = sign_in.hold_typed(
        g.session, g.principal, typed, draft_id=draft.draft_id if draft else None
    )
    commit_now()


def adopt(draft: Draft | None, server_id: str, saved: str) -> None:
    """Store what was fetched for the server that was saved, and say what was done (UI-29 to 32)."""
    try:
        connected = draft is not None and sign_in.adopt(
            g.session, g.principal, draft.draft_id, server_id
        )
    except Conflict as error:
        flash(
            f"{saved} Your sign-in could not be stored: {error.message} Connect under My"
            " credentials.",
            "error",
        )
        return
    flash(f"{saved} You are connected to it." if connected else saved, "success")


def shown(draft: Draft | None, form: ServerForm) -> dict[str, Any]:
    """What the form shows of a draft: which boxes are held, and what became of the sign-in."""
    draft_id = draft.draft_id if draft else g.get("draft_id")
    if draft_id is None:
        return {"draft_over": is_over()}
    typed = _typed(draft)
    held = [
        box.label.text
        for box in form
        if box.name in form.SECRET and typed.get(box.name, "").strip()
    ]
    held += [
        typed.get(f"{name.removesuffix('-value')}-name", "")
        for name in typed
        if _is_row_value(name) and typed[name]
    ]
    outcome = draft.outcome if draft and request.method == "GET" else None
    return {"draft": draft_id, "held": held, "result": _result(outcome) if outcome else None}


def failure(error: PortalError) -> dict[str, Any]:
    """A sign-in that did not begin, as `ui.tools.result` shows it."""
    return {
        "ok": False,
        "tone": "bad",
        "label": "You cannot be sent to the provider now",
        "message": error.message,
        "tools": None,
        "unset": (),
    }


def _result(outcome: Mapping[str, Any]) -> dict[str, Any]:
    state = outcome["state"]
    if state != "connected":
        said = outcome.get("message") or _SAID.get(state) or _provider_said(outcome)
        return {
            "ok": False,
            "tone": "bad",
            "label": "Not signed in",
            "message": said,
            "tools": None,
            "unset": (),
        }
    tried = outcome["test"]
    ok = tried["status"] == "healthy"
    account = f" as {outcome['account']}" if outcome.get("account") else ""
    label = f"Signed in{account}. Save, and you are connected."
    tools = tried["tools"]
    return {
        **tried,
        "tools": None if tools is None else [{**tool, "wire": tool} for tool in tools],
        "ok": ok,
        "tone": "ok" if ok else "warn",
        "label": label,
        "message": "" if ok else tried["message"],
    }


def _provider_said(outcome: Mapping[str, Any]) -> str:
    error = outcome.get("error")
    return (
        f"The provider refused it ({error})."
        if error
        else "The provider’s answer could not be used."
    )


def _typed(draft: Draft | None) -> MultiDict[str, str]:
    found: MultiDict[str, str] = g.typed if draft is not None and "typed" in g else request.form
    return found


def _merged(draft: Draft) -> MultiDict[str, str]:
    """What was sent, and in boxes that were left empty what is held; on the way back all that is
    held."""
    held = MultiDict(draft.typed)
    if request.method != "POST":
        return held
    sent = MultiDict(request.form.items(multi=True))
    for name, text in held.items():
        if (
            text.strip()
            and not sent.get(name, "x").strip()
            and (name in ServerForm.SECRET or _is_same_row(name, sent, held))
        ):
            sent[name] = text
    return sent


def _is_row_value(name: str) -> bool:
    return name.endswith("-value") and name.split("-")[0] in ("headers", "variables", "env")


def _is_same_row(name: str, sent: MultiDict[str, str], held: MultiDict[str, str]) -> bool:
    label = f"{name.removesuffix('-value')}-name"
    return _is_row_value(name) and sent.get(label) == held.get(label)
