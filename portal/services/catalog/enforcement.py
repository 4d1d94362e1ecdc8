"""The enforcement pack: managed settings for AI clients, generated from the active catalog."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal import authorization as authz
from portal.authorization import Action
from portal.domain.enforcement import PackFile, claude_files, vs_code_files
from portal.domain.principals import Principal
from portal.domain.servers import ApprovalStatus
from portal.services.catalog import registry
from portal.services.instance_settings import load_preferences
from portal.services.runtime import runtime_of
from portal.store.models import Server


@dataclass(frozen=True)
class Pack:
    """The files, the number of servers included and left out, and what VS Code would find."""

    files: tuple[PackFile, ...]
    servers: int
    left_out: int
    registry_url: str
    registry_is_on: bool
    listed: int


def make_pack(session: Session, principal: Principal) -> Pack:
    """Build the pack of active servers that an Admin can see, with their gateway addresses.

    Servers whose names are not valid in the registry are left out and counted.
    """
    authz.require(principal, Action.SERVER_CREATE)
    entries = registry.list_server_json(session, principal)
    servers = {entry["name"].rpartition("/")[2]: entry["remotes"][0]["url"] for entry in entries}
    url = runtime_of(session).public_url
    return Pack(
        files=(*claude_files(servers, _rejected(session, servers)), *vs_code_files(url)),
        servers=len(servers),
        left_out=_count(session, authz.visible_servers(principal)) - len(entries),
        registry_url=url,
        registry_is_on=load_preferences(session).enable_mcp_registry,
        listed=_count(session, authz.public_servers()),
    )


def _rejected(session: Session, active: dict[str, str]) -> list[str]:
    """Return the names that were rejected in review and that no active server has."""
    name = func.coalesce(Server.alias, Server.server_name)
    query = select(name).where(
        Server.approval_status == ApprovalStatus.REJECTED.value, name.is_not(None)
    )
    known = {name.casefold() for name in active}
    return [
        found
        for found in session.scalars(query.distinct().order_by(name))
        if found.casefold() not in known
    ]


def _count(session: Session, condition: object) -> int:
    return session.scalar(select(func.count()).select_from(Server).where(condition)) or 0  # type: ignore[arg-type]
