"""Postgres. One module per noun; functions take the session, the edge commits."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool


def create_engine(
    dsn: str, *, pooler: bool = False, size: int = 5, connect_s: float = 5.0, stalled_ms: int = 0
) -> AsyncEngine:
    """An engine for `dsn` (postgresql+asyncpg://...). Dispose of it at the process's end.

    `pooler`: the DSN leads to a transaction pooler. Prepared statements would then be looked for on a connection that
    never saw them, so every cache is off and pooling is left to the pooler. `size`: connections kept; twice as many
    may be open for a moment. `connect_s`: how long a connection may take before Postgres counts as gone.
    `stalled_ms`: Postgres ends a transaction whose process sends nothing for so long; 0: never.
    """
    server_settings = {"application_name": "mlcp"}
    if stalled_ms:
        server_settings["idle_in_transaction_session_timeout"] = str(stalled_ms)
    arguments: dict[str, object] = {"timeout": connect_s, "server_settings": server_settings}
    if pooler:
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        }
        return create_async_engine(dsn, poolclass=NullPool, connect_args=arguments)
    options: Mapping[str, Any] = {"pool_size": size, "max_overflow": size, "pool_timeout": connect_s}
    return create_async_engine(dsn, pool_pre_ping=True, connect_args=arguments, **options)


def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose rows stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)
