"""The audit chain in Postgres."""

import asyncio
import json
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit
from control_plane.domain.audit import Actor, first_bad

pytestmark = pytest.mark.integration
FACTS: dict[str, Any] = {"object": "model:fraud", "trigger": "test"}


async def test_concurrent_writers_leave_one_chain_without_gap_or_fork(maker: async_sessionmaker[AsyncSession]) -> None:
    async def write(name: str) -> None:
        for _ in range(25):
            async with maker.begin() as session:
                await audit.append(session, "written", actor=Actor(name), **FACTS)

    async with maker.begin() as session:
        await session.execute(text("SELECT now()"))  # the transaction that began first writes the last link
        await asyncio.gather(write("a"), write("b"))
        await audit.append(session, "written", actor=Actor("c"), **FACTS)
        links = await audit.links(session)
        verified = await audit.verify(session, size=7)
    records = [json.loads(link.payload) for link in links]
    assert [link.seq for link in links] == [record["seq"] for record in records] == list(range(1, 52))
    assert first_bad(links) is None
    assert (verified.links, verified.first_bad, verified.head) == (51, None, links[-1])
    times = [datetime.fromisoformat(record["at"]) for record in records]
    assert times == sorted(times)


async def test_the_row_is_the_last_statement_and_its_columns_copy_the_bytes(
    engine: AsyncEngine, maker: async_sessionmaker[AsyncSession]
) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    async with maker.begin() as session:
        await audit.append(session, "written", actor=Actor("ann", "admin", "k"), after={"b": 1, "a": "é"}, **FACTS)
    assert statements[-1].startswith("INSERT INTO audit")
    async with maker.begin() as session:
        row = (await session.execute(text("SELECT * FROM audit"))).one()
    record = json.loads(row.payload)
    assert (record["action"], record["object"], record["actor"]) == (
        row.action,
        row.object,
        {"key": "k", "person": row.actor, "role": "admin"},
    )
    assert datetime.fromisoformat(record["at"]) == row.at
    assert b'"after":{"a":"\xc3\xa9","b":1}' in row.payload  # RFC 8785: sorted, no spaces, UTF-8


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE audit SET payload = payload || ' ' WHERE seq = 3",
        "UPDATE audit SET hash = '\\x00' WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
        "UPDATE audit SET object = 'model:other' WHERE seq = 3",  # a search would no longer find it
        "UPDATE audit SET seq = -3 WHERE seq = 3",
    ],
)
async def test_a_row_that_was_touched_is_found(maker: async_sessionmaker[AsyncSession], harm: str) -> None:
    async with maker.begin() as session:
        for _ in range(5):
            await audit.append(session, "written", actor=Actor("a"), **FACTS)
        await session.execute(text("SET LOCAL session_replication_role = replica"))  # no trigger runs
        await session.execute(text(harm))
        verified = await audit.verify(session, size=2)
    assert verified.first_bad == (-3 if "-3" in harm else 3)


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "INSERT INTO audit SELECT seq + 2, payload, hash, at, action, object, actor FROM audit",
        "INSERT INTO audit SELECT seq + 1, payload, hash, at, action, object, actor FROM audit",
        "DELETE FROM audit_checkpoints",
    ],
)
async def test_postgres_itself_refuses_what_is_no_next_link(maker: async_sessionmaker[AsyncSession], harm: str) -> None:
    async with maker.begin() as session:
        await audit.append(session, "written", actor=Actor("a"), **FACTS)
    with pytest.raises(DBAPIError, match=r"append-only|does not follow"):
        async with maker.begin() as session:
            await session.execute(text(harm))


async def test_what_json_cannot_hold_never_stops_a_change(maker: async_sessionmaker[AsyncSession]) -> None:
    odd = {"nan": float("nan"), "big": 2**60, "inf": [float("-inf")], "half": "\ud800", "nested": {"x": (1, 2.5)}}
    async with maker.begin() as session:
        await audit.append(session, "written", actor=Actor("a"), evidence=odd, **FACTS)
        payload = (await audit.links(session))[0].payload
    assert json.loads(payload)["evidence"] == {
        "nan": "nan",
        "big": str(2**60),
        "inf": ["-inf"],
        "half": "?",
        "nested": {"x": [1, 2.5]},
    }
