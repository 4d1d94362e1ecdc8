"""The tables about what MCP clients do through the gateway: calls, and the last uses of servers."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from portal.store.models import Base

_ID = String(128)


class McpCallBatch(Base):
    """The calls that one process of the gateway logged within a minute.

    `chained_at` is when the digest of its calls was added to the audit chain.
    """

    __tablename__ = "mcp_call_batches"

    batch_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    began_at: Mapped[datetime] = mapped_column(index=True)
    chained_at: Mapped[datetime | None]


class McpCall(Base):
    """A call of a tool, prompt or resource; never its arguments or its result.

    `at` is its start. Users, keys and servers have no foreign key: the row stays unchanged when
    they are deleted, because the audit chain contains its digest.
    """

    __tablename__ = "mcp_calls"
    __table_args__ = (
        Index("ix_mcp_calls_server_id_at", "server_id", "at"),
        Index("ix_mcp_calls_user_id_at", "user_id", "at"),
    )

    batch_id: Mapped[str] = mapped_column(
        ForeignKey("mcp_call_batches.batch_id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    duration_ms: Mapped[int]
    user_id: Mapped[str | None] = mapped_column(_ID)
    key_id: Mapped[str | None] = mapped_column(_ID)
    app_id: Mapped[str | None] = mapped_column(Text)
    client_name: Mapped[str | None] = mapped_column(String(80))
    client_version: Mapped[str | None] = mapped_column(String(40))
    server_id: Mapped[str] = mapped_column(_ID)
    method: Mapped[str] = mapped_column(String(32))
    tool: Mapped[str | None] = mapped_column(String(128))
    outcome: Mapped[str] = mapped_column(String(16))
    bytes_in: Mapped[int] = mapped_column(BigInteger)
    bytes_out: Mapped[int] = mapped_column(BigInteger)


class McpUse(Base):
    """When a user last listed or called (`is_call`) something of a server, and with what client."""

    __tablename__ = "mcp_uses"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True
    )
    server_id: Mapped[str] = mapped_column(
        ForeignKey("servers.server_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    at: Mapped[datetime]
    is_call: Mapped[bool]
    client_name: Mapped[str | None] = mapped_column(String(80))
    client_version: Mapped[str | None] = mapped_column(String(40))
