"""Import: documents of other programs become servers, after a preview.

Between preview and import the document is stored sealed on the server; its secrets are never in a
page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import delete, or_
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.errors import Forbidden, NotFound, PortalError
from portal.domain.import_secrets import Share
from portal.domain.importing import ImportDocument, ImportEntry, with_choices
from portal.domain.principals import Principal
from portal.services import audit
from portal.services.catalog.import_documents import parse_document
from portal.services.catalog.import_plan import Plan, Planned, State, make_plan, merged, with_typed
from portal.services.runtime import runtime_of
from portal.services.secrets import bindings
from portal.services.servers import crud
from portal.services.servers.secret_moves import move_conflict
from portal.store.models import ImportDraft, Server, now

SHARES = {share.value: share for share in Share}
DRAFT_LIVES = timedelta(hours=1)


@dataclass(frozen=True)
class Choices:
    """What to import, by number in the plan (None for all new entries), and where each secret goes.

    `keep` says by number whether stored secrets that would move are kept (True) or deleted;
    `keep_all` is the default. `typed` are new values for them, by their names in the plan.
    """

    numbers: frozenset[int] | None = None
    shares: Mapping[tuple[int, int], Share] = field(default_factory=dict)
    otherwise: Share = Share.KEEP
    keep: Mapping[int, bool] = field(default_factory=dict)
    keep_all: bool | None = None
    typed: Mapping[int, Mapping[str, str]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ImportResult:
    """The result of an import: changed names, and skipped and failed ones with the reason."""

    imported: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    errors: tuple[tuple[str, int, str], ...]


def keep_document(session: Session, principal: Principal, text: str) -> Plan:
    """Parse a document and store it, sealed, for an import within the next hour."""
    authz.require(principal, Action.SERVER_CREATE)
    plan = make_plan(session, principal, parse_document(text))
    owner = _person(principal)
    session.execute(
        delete(ImportDraft).where(
            or_(ImportDraft.user_id == owner, ImportDraft.created_at < now() - DRAFT_LIVES)
        )
    )
    session.add(
        ImportDraft(
            user_id=owner, sealed=runtime_of(session).vault.seal(text, bindings.of_import(owner))
        )
    )
    session.flush()
    return plan


def plan_import(session: Session, principal: Principal) -> Plan:
    """Return what an import of the stored document would do now.

    Raises `NotFound` if it expired.
    """
    authz.require(principal, Action.SERVER_CREATE)
    return make_plan(session, principal, parse_document(_draft_text(session, principal)))


def drop_document(session: Session, principal: Principal) -> None:
    """Delete the stored document."""
    authz.require(principal, Action.SERVER_CREATE)
    session.execute(delete(ImportDraft).where(ImportDraft.user_id == _person(principal)))


def import_kept(session: Session, principal: Principal, choices: Choices) -> ImportResult:
    """Import the chosen entries of the stored document: all of them, or none if one fails."""
    authz.require(principal, Action.SERVER_CREATE)
    document = parse_document(_draft_text(session, principal))
    outcome = _run(session, principal, document, choices)
    chosen_wrong = [
        error for error in outcome.errors if error[0] in _chosen_names(document, choices)
    ]
    if not chosen_wrong:
        drop_document(session, principal)
    return ImportResult(outcome.imported, outcome.skipped, tuple(chosen_wrong))


def import_document(
    session: Session, principal: Principal, document: ImportDocument, choices: Choices | None = None
) -> ImportResult:
    """Import a document in one step: valid entries are imported, the others reported."""
    authz.require(principal, Action.SERVER_CREATE)
    return _run(session, principal, document, choices or Choices())


def import_text(
    session: Session,
    principal: Principal,
    text: str,
    *,
    update: bool = False,
    keep: bool | None = None,
) -> ImportResult:
    """Import the text of a document; with `update`, also change servers that differ.

    An entry that would send stored secrets to another host is an error, unless `keep` says whether
    to send or delete them.
    """
    authz.require(principal, Action.SERVER_CREATE)
    document = parse_document(text)
    rows = make_plan(session, principal, document).rows
    wanted = (State.NEW, State.CHANGED) if update else (State.NEW,)
    chosen = frozenset(r.number for r in rows if r.state in wanted)
    return _run(session, principal, document, Choices(chosen, keep_all=keep))


def _run(
    session: Session, principal: Principal, document: ImportDocument, choices: Choices
) -> ImportResult:
    imported: list[tuple[str, str]] = []
    skipped: list[tuple[str, str]] = []
    errors: list[tuple[str, int, str]] = []
    for row, entry in zip(
        make_plan(session, principal, document).rows, document.entries, strict=True
    ):
        chosen = (
            row.state is State.NEW if choices.numbers is None else row.number in choices.numbers
        )
        if row.state is State.WRONG:
            errors.append((row.name or row.key[:64], row.line, row.note))
        elif row.state is State.SKIPPED or not chosen:
            skipped.append((row.name, row.note or "Not selected."))
        else:
            try:
                with session.begin_nested():
                    imported.append(
                        (row.name, _import_one(session, principal, row, entry, choices))
                    )
            except PortalError as error:
                errors.append((row.name, row.line, error.message))
    if imported:
        names = [name for name, _ in imported]
        audit.record(
            session,
            principal,
            "servers imported",
            "server",
            None,
            document=document.kind,
            names=names,
        )
        session.flush()
    return ImportResult(tuple(imported), tuple(skipped), tuple(errors))


def _import_one(
    session: Session, principal: Principal, row: Planned, entry: ImportEntry, choices: Choices
) -> str:
    shares = {number: share for (of, number), share in choices.shares.items() if of == row.number}
    fields = with_choices(entry, shares, choices.otherwise)
    if row.server_id is None:
        fields["clear_secrets"] = []
        return crud.create_server(session, principal, fields).server_id
    stored = session.get(Server, row.server_id)
    assert stored is not None
    change = merged(stored, fields, entry.blank)
    keep = choices.keep.get(row.number, choices.keep_all)
    typed = choices.typed.get(row.number, {})
    if keep is not None and row.moves:
        change["keep_credentials"] = keep
    imported = crud.update_server(
        session, principal, row.server_id, with_typed(stored, change, typed)
    ).server_id
    unsaid = tuple(move for move in row.moves if move.secret not in typed)
    # A stored value that the document repeats, and that was chosen to become a variable.
    if keep is None and unsaid:
        raise move_conflict(unsaid, change, 0)
    return imported


def _chosen_names(document: ImportDocument, choices: Choices) -> set[str]:
    numbers = choices.numbers
    return {
        entry.name
        for n, entry in enumerate(document.entries)
        if numbers is not None and n in numbers
    }


def _person(principal: Principal) -> str:
    if principal.user_id is None:
        raise Forbidden("Only users can preview an import; this key has no owner.")
    return principal.user_id


def _draft_text(session: Session, principal: Principal) -> str:
    owner = _person(principal)
    row = session.get(ImportDraft, owner)
    text = None
    if row is not None and row.created_at > now() - DRAFT_LIVES:
        text = runtime_of(session).vault.open(row.sealed, bindings.of_import(owner))
    if text is None:
        raise NotFound("The document has expired. Paste it again.")
    return text
