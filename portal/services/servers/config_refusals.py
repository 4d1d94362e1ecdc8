"""Entries of the config file that were refused when the portal last started, kept where every
process sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from portal.domain.destinations import Moved
from portal.services.servers.secret_moves import as_json, moved, words
from portal.store.database import read
from portal.store.models import Preference, now

_NAME = "config_refused"
_STORED = select(Preference.value).where(Preference.name == bindparam("name"))
_LONGEST = 1_000
WOULD_MOVE = (
    "Say in the entry what is to become of them: keep_credentials: true lets them go along,"
    " keep_credentials: false forgets them. Then start the portal again."
)
_AT_FAULT = "Correct the entry, then start the portal again."


@dataclass(frozen=True)
class RefusedEntry:
    """An entry that was not taken: what is wrong with it, and which server goes on as it was, if
    there is one.

    `moves` are the secrets that it would have sent elsewhere.
    """

    entry: str
    why: str
    at: datetime
    server_id: str | None = None
    moves: tuple[Moved, ...] = ()

    @property
    def told(self) -> str:
        """What would have gone where, as a sentence names it."""
        return words(self.moves)

    @property
    def secrets(self) -> list[dict[str, object]]:
        """The same as refusals name them."""
        return as_json(self.moves)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return WOULD_MOVE if self.moves else _AT_FAULT


def keep(session: Session, refused: Sequence[RefusedEntry]) -> None:
    """Keep what this start refused, in place of what the one before did."""
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
    """What the last start refused."""
    found = read(session, _STORED, name=_NAME).scalar()
    if not found:
        return ()
    at = datetime.fromisoformat(found["at"])
    return tuple(
        RefusedEntry(e["entry"], e["why"], at, e["server_id"], moved(e["moves"]))
        for e in found["entries"]
    )
