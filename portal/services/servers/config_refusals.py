"""Config file entries that the last start refused, stored so that every process can show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from portal.domain.destinations import Moved
from portal.services.servers.secret_moves import moves_as_json, read_moves, words
from portal.store.database import read
from portal.store.models import Preference, now

_NAME = "config_refused"
_STORED = select(Preference.value).where(Preference.name == bindparam("name"))
_LONGEST = 1_000
WOULD_MOVE = (
    "Add keep_credentials: true to the entry to send them to the new host, or keep_credentials:"
    " false to delete them. Then restart the portal."
)
_AT_FAULT = "Correct the entry, then restart the portal."


@dataclass(frozen=True)
class RefusedEntry:
    """A refused entry: what is wrong with it, and the server that stays unchanged, if there is one.

    `moves` are the secrets that it would have sent to another host.
    """

    entry: str
    why: str
    at: datetime
    server_id: str | None = None
    moves: tuple[Moved, ...] = ()

    @property
    def told(self) -> str:
        """The secrets that would have moved, and where, as a phrase."""
        return words(self.moves)

    @property
    def secrets(self) -> list[dict[str, object]]:
        """The secrets that would have moved, as refusals list them."""
        return moves_as_json(self.moves)

    @property
    def remedy(self) -> str:
        """How to resolve the refusal."""
        return WOULD_MOVE if self.moves else _AT_FAULT


def keep_refusals(session: Session, refused: Sequence[RefusedEntry]) -> None:
    """Store the entries that this start refused, replacing those of the last start."""
    row = session.get(Preference, _NAME)
    if not refused:
        if row is not None:
            session.delete(row)
        return
    row = row or Preference(name=_NAME)
    row.value = {
        "at": now().isoformat(),
        "entries": [
            {
                "entry": r.entry[:_LONGEST],
                "why": r.why[:_LONGEST],
                "server_id": r.server_id,
                "moves": r.secrets,
            }
            for r in refused
        ],
    }
    session.add(row)


def kept(session: Session) -> tuple[RefusedEntry, ...]:
    """Return the entries that the last start refused."""
    found = read(session, _STORED, name=_NAME).scalar()
    if not found:
        return ()
    at = datetime.fromisoformat(found["at"])
    return tuple(
        RefusedEntry(e["entry"], e["why"], at, e["server_id"], read_moves(e["moves"]))
        for e in found["entries"]
    )
