"""Triggers that record in `revocations` every change that removes access, in its transaction.

The database does this, so that no use case, cascade, older version or manual statement can omit it.
`WATCHED` lists every table whose rows give access; `UNWATCHED` gives the reason for each other
table. A test compares both with the models.

On PostgreSQL, a second trigger copies each entry to the schema `portal_journal`, which the
documented backup leaves out. On SQLite, `journal.py` copies them to a file after the commit.
"""

# ruff: noqa: S608 - every name is one of this file or of the models, none is input

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import JSON, Connection, text

from portal.store.models import Base

SCHEMA = "portal_journal"
_VERSION = 3
"""Part of the triggers' names; increase it when the triggers change. Other versions are dropped."""
SAME = "!same"
"""Appended to a mark that is about to be rewritten without a change, as when rehashing a password.

Writing the old value with this suffix and then the new value, in one transaction, records no
change.
"""


@dataclass(frozen=True)
class Watched:
    """A table whose rows give access.

    `subject` are the columns that identify what ended. `limits` are columns, or members of a JSON
    column, whose changes are recorded with the remaining values; for `marks`, which are texts, only
    the fact of a change is recorded (see `SAME`). `returns`: a new row with the same subject
    cancels the end, and its `facts` are recorded. `begins`: every new row is recorded in the same
    way, because the first one may limit what its holder reached without it. `over` is a condition
    on the old row under which its end is not recorded.
    """

    table: str
    subject: tuple[str, ...]
    limits: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    returns: bool = False
    begins: bool = False
    over: str = ""


WATCHED = (
    Watched(
        "api_keys",
        ("key_id",),
        limits=("revoked_at", "expires_at", "allowed_routes", "set_by"),
        over="(OLD.revoked_at is not null or OLD.expires_at <= CURRENT_TIMESTAMP)",
    ),
    Watched(
        "users", ("user_id",), limits=("role", "is_active"), marks=("password_hash", "sso_subject")
    ),
    Watched("teams", ("team_id",)),
    Watched("team_members", ("team_id", "user_id"), limits=("role",), returns=True),
    Watched(
        "grants",
        ("holder_kind", "holder_id", "kind", "server_id", "access_group_id", "toolset_id"),
        facts=("tools",),
        begins=True,
    ),
    Watched("access_groups", ("access_group_id",)),
    Watched("access_group_servers", ("access_group_id", "server_id"), returns=True),
    Watched("toolsets", ("toolset_id",)),
    Watched("toolset_tools", ("toolset_id", "server_id", "tool_name"), begins=True),
    Watched(
        "servers",
        ("server_id",),
        limits=(
            "approval_status",
            "is_public",
            "allow_all_keys",
            "available_on_public_internet",
            "allowed_tools",
            "delegate_auth_to_upstream",
            "oauth_passthrough",
            "mcp_info.tool_allowlist_enforced",
        ),
    ),
    Watched("consents", ("user_id", "server_id", "client_hash"), returns=True),
    Watched("mcp_clients", ("registration_id",)),
    Watched("user_credentials", ("user_id", "server_id", "kind")),
    Watched("user_variables", ("user_id", "server_id", "name")),
)

UNWATCHED: Mapping[str, str] = {
    "sessions": "every restore ends all of them",
    "oauth_flows": "every restore ends all of them",
    "temporary_servers": "every restore ends all of them",
    "shared_tokens": "tokens of the portal itself; they give no caller access",
    "import_drafts": "live an hour",
    "server_secrets": "the definition of a server, not access of a caller",
    "server_variables": "the definition of a server, not access of a caller",
    "server_authorizations": "what discovery found",
    "oauth_client_registrations": "the portal's registrations at others",
    "health_records": "history",
    "preferences": "settings are as in the backup; `portal restore` says so",
    "proposals": "give nothing before a review",
    "reviews": "history",
    "tool_sights": "give no access",
    "tool_definitions": "are compared again with what the server offers",
    "audit_events": "history",
    "chain_keys": "verify the audit chain",
    "revocations": "the list itself",
    "rate_counts": "limit attempts, and give no access",
    "refresh_grants": "end with their consents, which are watched",
    "app_grants": "every restore ends all of them",
    "app_tokens": "end with their grants of apps",
    "mcp_call_batches": "history",
    "mcp_calls": "history",
    "mcp_uses": "history",
    "known_sign_ins": "exempt a user from a limit, and give no access",
}


def install(connection: Connection) -> None:
    """Create missing triggers; a migration that recreates an SQLite table loses its triggers."""
    _drop_others(connection)
    if connection.dialect.name == "postgresql":
        _install_postgresql(connection)
    else:
        _install_sqlite(connection)


def is_installed(connection: Connection) -> bool:
    """Return whether all triggers exist."""
    return not _missing(connection)


def _missing(connection: Connection) -> list[tuple[Watched, str]]:
    there = _there(connection)
    return [(of, what) for of in WATCHED for what in _events(of) if _name(of, what) not in there]


def _there(connection: Connection) -> dict[str, str]:
    """Return the existing triggers of any version, with their tables."""
    if connection.dialect.name == "postgresql":
        query = "select tgname, relname from pg_trigger join pg_class on pg_class.oid = tgrelid"
        query += (
            " where relnamespace = current_schema()::regnamespace and tgname like 'portal_ends_%'"
        )
    else:
        query = (
            "select name, tbl_name from sqlite_master where type = 'trigger' and name like"
            " 'portal_ends_%'"
        )
    return {row[0]: row[1] for row in connection.execute(text(query))}


def _drop_others(connection: Connection) -> None:
    """Drop triggers of other versions, which would record duplicates or obsolete entries."""
    others = {
        n: t for n, t in _there(connection).items() if not n.startswith(f"portal_ends_{_VERSION}_")
    }
    if others and connection.dialect.name == "postgresql":
        connection.execute(text("set local lock_timeout = '30s'"))
    for name, table in others.items():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"drop trigger {name} on {table}"))
            connection.execute(text(f"drop function if exists {name}()"))
        else:
            connection.exec_driver_sql(f"drop trigger {name}")


def _events(of: Watched) -> list[str]:
    return [
        "delete",
        *(["update"] if of.limits or of.marks else []),
        *(["insert"] if of.returns or of.begins else []),
    ]


def _name(of: Watched, what: str) -> str:
    return f"portal_ends_{_VERSION}_{of.table}_{what}"


def _plain(of: Watched, row: str, column: str, *, postgresql: bool) -> str:
    """Return a column or a member in a comparable form; PostgreSQL cannot compare JSON."""
    column, _, member = column.partition(".")
    if member and postgresql:
        return f"({row}.{column}->>'{member}')"
    if member:
        return f"json_extract({row}.{column}, '$.{member}')"
    is_json = isinstance(Base.metadata.tables[of.table].columns[column].type, JSON)
    return f"cast({row}.{column} as text)" if is_json else f"{row}.{column}"


def _parts(of: Watched, what: str, *, postgresql: bool) -> tuple[str, str, str, str]:
    """Return the operation, subject, facts and condition of an entry, as SQL."""
    row = "OLD" if what == "delete" else "NEW"
    array, thing, cast = "json_array", "json_object", ""
    if postgresql:
        array, thing, cast = "json_build_array", "json_build_object", "::text"
    differs = "is distinct from" if postgresql else "is not"
    subject = f"{array}({', '.join(f'{row}.{column}' for column in of.subject)}){cast}"
    kept = of.limits if what == "update" else of.facts
    pairs = [f"'{column}', {_plain(of, row, column, postgresql=postgresql)}" for column in kept]
    marks = {column: _changes(column, differs) for column in of.marks}
    if what == "update":
        pairs += [f"'{column}', {changes}" for column, changes in marks.items()]
    facts = f"{thing}({', '.join(pairs)}){cast}" if pairs else "'{}'"
    if what == "delete":
        return "ended", subject, facts, f"({of.over}) is not true" if of.over else "1 = 1"
    if what == "insert" and of.begins:
        return "returned", subject, facts, "1 = 1"
    if what == "insert":
        return (
            "returned",
            subject,
            facts,
            f"exists (select 1 from revocations where kind = '{of.table}' and subject = {subject})",
        )
    both = [
        [_plain(of, row, column, postgresql=postgresql) for row in ("OLD", "NEW")]
        for column in of.limits
    ]
    changed = [f"{old} {differs} {new}" for old, new in both]
    return "limited", subject, facts, f"({' or '.join([*changed, *marks.values()])})"


def _changes(column: str, differs: str) -> str:
    """Return the condition that a mark has changed, except in form."""
    again = f"NEW.{column} = OLD.{column} || '{SAME}' or OLD.{column} like '%{SAME}'"
    return f"(OLD.{column} {differs} NEW.{column} and ({again}) is not true)"


def _of_columns(of: Watched, what: str) -> str:
    columns = dict.fromkeys(name.partition(".")[0] for name in (*of.limits, *of.marks))
    return f"update of {', '.join(columns)}" if what == "update" else what


def _install_sqlite(connection: Connection) -> None:
    for of, what in _missing(connection):
        op, subject, facts, condition = _parts(of, what, postgresql=False)
        connection.exec_driver_sql(
            f"create trigger {_name(of, what)} after {_of_columns(of, what)} on {of.table} for each"
            " row begin insert into revocations (entry_id, at, op, kind, subject, facts) select"
            f" lower(hex(randomblob(16))), strftime('%Y-%m-%d %H:%M:%f000', 'now'), '{op}',"
            f" '{of.table}', {subject}, {facts} where {condition}; end"
        )


def _install_postgresql(connection: Connection) -> None:
    missing = _missing(connection)
    mirror = f"portal_ends_{_VERSION}_copy"
    there = connection.scalar(
        text("select count(*) from pg_trigger where tgname = :name"), {"name": mirror}
    )
    if missing or not there:
        connection.execute(text("set local lock_timeout = '30s'"))
    for of, what in missing:
        op, subject, facts, condition = _parts(of, what, postgresql=True)
        name = _name(of, what)
        connection.execute(
            text(
                f"create or replace function {name}() returns trigger language plpgsql as $body$"
                f" begin if {condition} then insert into revocations (entry_id, at, op, kind,"
                f" subject, facts) values (gen_random_uuid()\\:\\:text, clock_timestamp(), '{op}',"
                f" '{of.table}', {_escaped(subject)}, {_escaped(facts)}); end if; return null; end"
                " $body$"
            )
        )
        connection.execute(
            text(
                f"create trigger {name} after {_of_columns(of, what)} on {of.table}"
                f" for each row execute function {name}()"
            )
        )
    if not there:
        columns = "position, entry_id, at, op, kind, subject, facts"
        values = ", ".join(f"NEW.{column}" for column in columns.split(", "))
        connection.execute(
            text(
                f"create or replace function {mirror}() returns trigger language plpgsql as $body$"
                f" begin if to_regclass('{SCHEMA}.revocations') is not null then insert into"
                f" {SCHEMA}.revocations ({columns}) values ({values}) on conflict (entry_id) do"
                " nothing; end if; return null; end $body$"
            )
        )
        connection.execute(
            text(
                f"create trigger {mirror} after insert on revocations for each row execute function"
                f" {mirror}()"
            )
        )
        _install_head(connection)


def make_schema(connection: Connection) -> None:
    """Create the journal's schema on PostgreSQL.

    The table `identity` stores the OID of the table of entries; a restored dump has another one.
    """
    there = connection.scalar(text("select to_regnamespace(:name) is not null"), {"name": SCHEMA})
    if not there:
        connection.execute(text(f"create schema {SCHEMA}"))
    for table in (
        (
            "revocations (entry_id text primary key, position bigint not null, at timestamptz not"
            " null, op text not null, kind text not null, subject text not null, facts text not"
            " null)"
        ),
        "identity (journal_id text primary key, made_as text not null)",
        "head (sequence bigint not null, event_hash text not null)",
    ):
        connection.execute(text(f"create table if not exists {SCHEMA}.{table}"))


def made_as(connection: Connection) -> str:
    """Return what identifies the table of entries in this database on this server."""
    query = (
        "select current_database() || '/' || (select oid from pg_database where datname ="
        " current_database())"
    )
    query += f" || '/' || '{SCHEMA}.revocations'::regclass::oid"
    return str(connection.scalar(text(query)))


def _install_head(connection: Connection) -> None:
    """Install the trigger that updates the outside audit head from the one in the settings.

    It does so only if the events still contain the outside head.
    """
    name = f"portal_ends_{_VERSION}_head"
    connection.execute(
        text(
            f"create or replace function {name}() returns trigger language plpgsql as $body$"
            f" declare outside record; begin if to_regclass('{SCHEMA}.head') is null then return"
            f" null; end if; select sequence, event_hash into outside from {SCHEMA}.head; if not"
            " found then return null; end if; if (NEW.value->>'sequence')::bigint >"
            " outside.sequence and (outside.sequence = 0 or exists (select 1 from audit_events"
            " where sequence = outside.sequence and event_hash = outside.event_hash)) then update"
            f" {SCHEMA}.head set sequence = (NEW.value->>'sequence')::bigint, event_hash ="
            " NEW.value->>'hash'; end if; return null; end $body$"
        )
    )
    connection.execute(
        text(
            f"create trigger {name} after insert or update on preferences for each row"
            f" when (NEW.name = 'audit_head') execute function {name}()"
        )
    )


def _escaped(sql: str) -> str:
    return sql.replace("::", "\\:\\:")
