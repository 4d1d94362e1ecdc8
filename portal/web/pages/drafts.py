"""Drafts of the server form: the input is kept while the user signs in at the provider.

Secrets are not sent back to the page. They are kept for 300 s, and an empty field in the form
stands for the stored secret.
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
    "declined": "You declined access at the provider. No token was stored.",
    "changed": "The server definition or its provider changed while you signed in. Sign in again.",
    "other_issuer": "The response came from a different provider. No token was stored.",
    "unreachable": "The provider did not respond. Try again in a moment.",
    "refused_by_rules": "The token failed this server’s token validation rules. It was not stored.",
}


def opened_draft() -> Draft | None:
    """Return the draft that the request names, or None if it expired or is another user's.

    Sets `g.typed` to the submitted form, completed with the values of the draft.
    """
    draft_id = request.values.get("draft", "")[:128]
    draft = sign_in.get_draft(g.session, g.principal, draft_id) if draft_id else None
    if draft is not None:
        g.typed = _merged(draft)
    return draft


def is_over() -> bool:
    """Return whether the request names a draft that has expired."""
    return bool(request.values.get("draft")) and "typed" not in g


def depart(form: ServerForm, stored: Stored | None, draft: Draft | None) -> Response:
    """Keep the form input and redirect to the provider.

    Raises `InvalidInput` for an invalid definition and `UpstreamFailure` for a provider error.
    """
    server_id = stored.view.server_id if stored else None
    typed = [
        (name, text) for name, text in _typed(draft).items(multi=True) if name not in _NOT_TYPED
    ]
    draft_id = sign_in.hold_draft(
        g.session,
        g.principal,
        form.fields(),
        typed,
        draft_id=draft.draft_id if draft else None,
        server_id=server_id,
    )
    commit_now()  # keep the draft even if the provider fails
    g.draft_id = draft_id
    browser = new_or_bound_browser()
    back = url_for("servers.edit", server_id=server_id, draft=draft_id) if server_id else None
    departure = sign_in.begin_draft_connection(
        g.session,
        g.principal,
        draft_id,
        browser=browser,
        back=back or url_for("servers.create", draft=draft_id),
    )
    message = "After signing in you return to the form with the tools. Nothing is saved yet."
    response = onward(departure.url, f"Continue to {departure.host}", message)
    response.headers["Referrer-Policy"] = "no-referrer"
    return bind(response, browser)


def keep_typed(draft: Draft | None) -> None:
    """Keep the form input while the user confirms, so that nothing has to be entered again."""
    typed = [
        (name, text) for name, text in _typed(draft).items(multi=True) if name not in _NOT_TYPED
    ]
    g.draft_id = sign_in.hold_typed(
        g.session, g.principal, typed, draft_id=draft.draft_id if draft else None
    )
    commit_now()


def adopt(draft: Draft | None, server_id: str, saved: str) -> None:
    """Store the draft's token for the saved server, and flash the result."""
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
    """Return the template context of a draft: fields with a kept secret, and the sign-in result."""
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
    """Return a sign-in that could not start, in the format of `ui.tools.result`."""
    return {
        "ok": False,
        "tone": "bad",
        "label": "Can’t reach the sign-in provider",
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
    label = f"Signed in{account}. Save to connect."
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
        f"The provider refused the request ({error})."
        if error
        else "The provider’s response is not valid."
    )


def _typed(draft: Draft | None) -> MultiDict[str, str]:
    found: MultiDict[str, str] = g.typed if draft is not None and "typed" in g else request.form
    return found


def _merged(draft: Draft) -> MultiDict[str, str]:
    """Return the submitted form, with empty secret fields filled from the draft.

    For a GET request, return all values of the draft.
    """
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
