"""Wake-ups over Postgres: `pg_notify` inside the transaction that has work for someone, `Wake` for who does it."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg  # LISTEN needs a connection that no pool takes back; asyncpg's types are unknown to the checkers
from sqlalchemy import func, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession

CHANNEL = "mlcp_wake"  # payload: what changed, for the reader of a log
_log = logging.getLogger(__name__)
_RETRY_S = 1.0


async def notify(session: AsyncSession, what: str) -> None:
    """Wake the reconciler and the worker when this transaction commits."""
    await session.execute(select(func.pg_notify(CHANNEL, what)))


class Wake:
    """Set by notifications; each waiter has its own. A notification while nobody waits is not lost."""

    def __init__(self) -> None:
        self._events: set[asyncio.Event] = set()

    def ring(self) -> None:
        for event in self._events:
            event.set()

    def bell(self) -> asyncio.Event:
        """A new event that every `ring` sets, until `forget`; its owner clears it before it looks."""
        event = asyncio.Event()
        self._events.add(event)
        return event

    def forget(self) -> None:
        """Let go of every bell."""
        self._events.clear()


@asynccontextmanager
async def listening(dsn: str) -> AsyncGenerator[Wake]:
    """A Wake that rings at every notification, and after each reconnection: some may have been missed meanwhile.

    `dsn` as SQLAlchemy takes it; it must lead to Postgres itself, not to a transaction pooler. A lost connection is
    made again once a second; until then the owner's own timer has to do.
    """
    wake = Wake()
    task = asyncio.create_task(_listen(dsn, wake), name="listen")
    try:
        yield wake
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(dsn: str, wake: Wake) -> None:
    plain = make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(plain, autocommit=True, connect_timeout=5) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                wake.ring()
                async for _ in connection.notifies():
                    wake.ring()
        except (OSError, psycopg.Error) as exc:
            _log.info("listening for wake-ups failed, trying again: %r", exc)
        await asyncio.sleep(_RETRY_S)
