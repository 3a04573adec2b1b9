"""Postgres. One module per noun; functions take the session, the edge commits."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from control_plane.errors import Conflict, ControlPlaneError, RolloutOpen, StaleRevision, StoreUnavailable


def create_engine(
    dsn: str, *, pooler: bool = False, size: int = 5, connect_s: float = 5.0, stalled_ms: int = 0, lock_ms: int = 0
) -> AsyncEngine:
    """An engine for `dsn` (postgresql+asyncpg://...). Dispose of it at the process's end.

    `pooler`: the DSN leads to a transaction pooler. Prepared statements would then be looked for on a connection that
    never saw them, so every cache is off and pooling is left to the pooler. `size`: connections kept; twice as many
    may be open for a moment. `connect_s`: how long a connection may take before Postgres counts as gone.
    `stalled_ms`: Postgres ends a transaction whose process sends nothing for so long; 0: never. `lock_ms`: longest
    wait for a row somebody else is changing; 0: for ever. A transaction pooler would refuse both, and gets neither.
    """
    server_settings = {"application_name": "mlcp"}
    if lock_ms and not pooler:
        server_settings["lock_timeout"] = str(lock_ms)
    if stalled_ms and not pooler:
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


# How asyncpg words a connection that was cut between a statement's messages: its own state machine is out of step.
_OUT_OF_STEP = AsyncAdapt_asyncpg_dbapi.InternalClientError


@asynccontextmanager
async def transaction(maker: async_sessionmaker[AsyncSession]) -> AsyncGenerator[AsyncSession]:
    """One transaction: committed at the end, rolled back on any exception.

    Raises:
        StoreUnavailable: Postgres does not answer, or went away meanwhile. Nothing is known of a commit it cut off.
        StaleRevision, RolloutOpen, Conflict: another transaction came first.
    """
    try:
        async with maker.begin() as session:
            yield session
    except (DBAPIError, PoolTimeout, OSError) as exc:  # TimeoutError is an OSError
        translated = _translated(exc)
        if translated is None:
            raise
        raise translated from exc


def _translated(exc: DBAPIError | PoolTimeout | OSError) -> ControlPlaneError | None:
    """What it means to a user; None for a mistake of ours."""
    if not isinstance(exc, DBAPIError):
        return StoreUnavailable("Postgres does not answer.")
    state = str(getattr(exc.orig, "sqlstate", None) or "")
    cut = exc.connection_invalidated or isinstance(exc.orig, _OUT_OF_STEP)
    if cut or state[:2] in {"08", "57", "53"}:  # connection, shutdown, out of resources
        return StoreUnavailable("Postgres does not answer.")
    if state in {"40001", "40P01", "55P03"}:  # serialization failure, deadlock, lock timeout
        return StaleRevision("Another change came first; try again.")
    if isinstance(exc, IntegrityError):
        text = str(exc.orig)
        if "one_open_rollout" in text:
            return RolloutOpen("Another rollout of this model was opened first.")
        if "one_training_per_model" in text:
            return Conflict("A training of this model was wanted first.")
    return None
