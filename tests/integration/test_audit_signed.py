"""The audit signed, exported, tampered with straight in the database, and verified."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters import signing, store
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.objects import Objects
from control_plane.adapters.store import audit, lease
from control_plane.adapters.store import checkpoints as kept
from control_plane.adapters.store.tables import AuditRow
from control_plane.domain import audit as domain
from control_plane.domain import audit_export, checkpoints, ed25519
from control_plane.domain.audit import GENESIS, Actor, Link
from control_plane.errors import Forbidden, Unavailable
from control_plane.reconciler import reconcile_audit
from control_plane.reconciler.context import Context
from control_plane.sdk import AsyncControlPlane
from control_plane.services import audit as service
from control_plane.services import signing as checkpointing
from control_plane.settings import ReconcilerSettings
from tests.support.api import Api

pytestmark = pytest.mark.integration
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 10_000
FACTS: dict[str, Any] = {"actor": Actor("ann"), "object": "model:fraud", "trigger": "test"}


def row(head: Link, action: str) -> dict[str, Any]:
    facts = {"seq": head.seq + 1, "at": NOW, "action": action, "object": "model:fraud", "actor": {"person": "ann"}}
    link = domain.follow(head, audit.canonical(facts))
    made = {"seq": link.seq, "payload": link.payload, "hash": link.hash, "at": NOW, "action": action}
    return {**made, "object": "model:fraud", "actor": "ann"}


def rows(actions: Sequence[str], head: Link = GENESIS) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for action in actions:
        found.append(row(head, action))
        head = Link(found[-1]["seq"], b"", found[-1]["hash"])
    return found


async def sign_all(session: AsyncSession, folder: Path, *, now: datetime = NOW) -> int:
    signer, made = signing.load(folder / signing.PRIVATE), 0
    while await checkpointing.sign(session, signer, now=now):
        made += 1
    return made


async def rewrite(session: AsyncSession, forged: Sequence[dict[str, Any]], since: int) -> None:
    """What somebody with every right on the database does: from row `since` on the chain is another, and whole."""
    await session.execute(text("SET LOCAL session_replication_role = replica"))
    await session.execute(text("DELETE FROM audit WHERE seq >= :since"), {"since": since})
    await session.execute(insert(AuditRow), list(forged))


async def test_ten_thousand_rows_forged_in_five_ways_with_every_hash_recomputed_name_their_first_bad_row(
    maker: async_sessionmaker[AsyncSession], home: Path
) -> None:
    keys = home / "keys"
    signing.ensure(keys)
    actions = [f"a{n}" for n in range(1, ROWS + 1)]
    written = rows(actions)
    async with maker.begin() as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))  # 10,000 checks of the head
        await session.execute(insert(AuditRow), written)
        assert await sign_all(session, keys, now=NOW + timedelta(minutes=2)) == ROWS / checkpoints.LARGEST
    public = signing.public_keys(keys / signing.PUBLIC)
    at = 9_137
    head = Link(at - 1, b"", written[at - 2]["hash"])
    rest = actions[at - 1 :]
    forgeries = {
        "edited": rows(["forged", *rest[1:]], head),
        "deleted": rows(rest[1:], head),
        "inserted": rows(["forged", *rest], head),
        "reordered": rows([rest[1], rest[0], *rest[2:]], head),
        "cut and written anew": rows(["other"] * 20, head),
    }
    for kind, forged in forgeries.items():
        async with maker() as session:
            await rewrite(session, forged, at)
            believed = await service.verify(session, {}, None)
            assert believed.first_bad is None, f"{kind}: by its own hashes the chain is whole"
            found = await service.verify(session, public, None)
            assert (found.ok, found.first_bad, found.signed_to) == (False, at, ROWS), kind
            await session.rollback()
    async with maker() as session:
        started = time.perf_counter()
        whole = await service.verify(session, public, None)
        assert (whole.ok, whole.links, whole.checkpoints) == (True, ROWS, 10), time.perf_counter() - started


async def test_what_was_cut_off_with_its_checkpoints_is_missed_because_of_the_copy_kept_elsewhere(
    maker: async_sessionmaker[AsyncSession], home: Path
) -> None:
    signing.ensure(home / "keys")
    objects = Objects((home / "archive").as_uri(), checkpointing.FOLDER)
    async with maker.begin() as session:
        for _ in range(2):
            for _ in range(5):
                await audit.append(session, "written", **FACTS)
            assert await sign_all(session, home / "keys", now=datetime.now(UTC) + timedelta(minutes=2)) == 1
        for signed in await kept.every(session):
            objects.put(checkpointing.name(checkpoints.parse(signed.body), signed), checkpoints.serialise(signed))
    public = signing.public_keys(home / "keys" / signing.PUBLIC)
    copy = checkpointing.exported(objects)
    async with maker.begin() as session:
        assert (await service.verify(session, public, copy)).ok
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        await session.execute(text("DELETE FROM audit WHERE seq > 5"))
        await session.execute(text("DELETE FROM audit_checkpoints WHERE seq > 5"))
        assert (await service.verify(session, public, None)).ok  # the database alone does not know better
        found = await service.verify(session, public, copy)
    assert (found.ok, found.first_bad, found.exported_to) == (False, 6, 10)


async def test_an_export_of_the_database_is_verified_without_it(
    maker: async_sessionmaker[AsyncSession], home: Path
) -> None:
    signing.ensure(home / "keys")
    async with maker.begin() as session:
        for _ in range(3):
            await audit.append(session, "written", reasons=["é \u0000"], **FACTS)
        await sign_all(session, home / "keys", now=datetime.now(UTC) + timedelta(minutes=2))
        await audit.append(session, "written", **FACTS)
        lines = b"".join([piece async for piece in service.export(session, now=NOW)]).splitlines()
    keys = {ed25519.key_id(key): key for key in ed25519.from_pem((home / "keys" / signing.PUBLIC).read_text())}
    found = audit_export.verify(lines, keys, ed25519.verify)
    assert (found.walked.links, found.walked.first_bad, found.trusted.seq, found.trusted.reasons) == (4, None, 3, ())


async def test_a_broken_chain_is_never_signed_over(maker: async_sessionmaker[AsyncSession], home: Path) -> None:
    signing.ensure(home / "keys")
    late = datetime.now(UTC) + timedelta(minutes=2)
    async with maker.begin() as session:
        for _ in range(3):
            await audit.append(session, "written", **FACTS)
        assert await sign_all(session, home / "keys", now=datetime.now(UTC)) == 0  # not due yet
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        await session.execute(text("UPDATE audit SET payload = '{}' WHERE seq = 2"))
        assert await sign_all(session, home / "keys", now=late) == 0


async def test_fifty_writers_at_once_leave_no_gap_and_no_fork(dsn: str) -> None:
    engine: AsyncEngine = store.create_engine(dsn, size=25)  # twice as many may be open
    maker = store.sessions(engine)

    async def write(name: str) -> None:
        for _ in range(4):
            async with store.transaction(maker) as session:
                await audit.append(session, "written", **{**FACTS, "actor": Actor(name)})

    await asyncio.gather(*(write(f"person{n}") for n in range(50)))
    async with maker() as session:
        found = await audit.verify(session)
    await engine.dispose()
    assert (found.links, found.head.seq, found.first_bad) == (200, 200, None)


async def test_the_leader_signs_and_exports_what_is_due_and_says_what_is_not(
    maker: async_sessionmaker[AsyncSession], home: Path
) -> None:
    async with maker.begin() as session:
        mine = await lease.acquire(session, "reconciler", "me", timedelta(minutes=5))
        assert mine is not None
        for _ in range(checkpoints.LINKS):
            await audit.append(session, "written", **FACTS)
    environ = {"postgres_dsn": SecretStr("unused"), "redis_url": "unused", "home": home}
    settings, nothing = ReconcilerSettings.model_validate(environ), cast(Any, None)
    context = Context(settings, maker, nothing, nothing, nothing, nothing, nothing, mine, datetime.now(UTC))
    memory = reconcile_audit.Memory.fresh(Metrics(home / "metrics", "test"))

    def unsigned() -> float:
        return float(memory.unsigned._value.get())  # the library has no way to read what it keeps

    await reconcile_audit.look(context, memory)  # there is no key
    assert unsigned() == checkpoints.LINKS
    signing.ensure(home / "keys")
    (home / "archive").write_text("no folder")
    with pytest.raises(Unavailable):
        await reconcile_audit.look(context, memory)
    assert unsigned() == checkpoints.LINKS  # signed, but nowhere else
    (home / "archive").unlink()
    await reconcile_audit.look(context, memory)
    assert unsigned() == 0
    copy = checkpointing.exported(Objects((home / "archive").as_uri(), checkpointing.FOLDER))
    assert copy is not None
    assert checkpointing.newest_seq(copy) == checkpoints.LINKS
    assert (home / "keys" / signing.PRIVATE).stat().st_mode & 0o777 == 0o600


async def test_the_api_verifies_and_exports_for_an_auditor_and_says_what_it_could_not_look_at(
    api: Api, home: Path
) -> None:
    signing.ensure(home / "keys")
    auditor = await api.key("auditor")
    async with api.maker.begin() as session:
        await sign_all(session, home / "keys", now=datetime.now(UTC) + timedelta(minutes=2))
    async with AsyncControlPlane(api.url, auditor) as cp:
        found = await cp.verify_audit()
        assert (found.ok, found.signed_to, found.notes) == (True, found.head_seq, [])
        pieces = list[bytes]()
        await cp.export_audit(pieces.append)
    lines = b"".join(pieces).splitlines()
    assert audit_export.verify(lines, signing.public_keys(home / "keys" / signing.PUBLIC), signing.verify).trusted.seq
    async with AsyncControlPlane(api.url, await api.key("viewer")) as cp:
        with pytest.raises(Forbidden):
            await cp.export_audit(pieces.append)
    (home / "keys" / signing.PUBLIC).write_text("no key")
    async with AsyncControlPlane(api.url, auditor) as cp:
        found = await cp.verify_audit()
    assert (found.ok, found.first_bad, len(found.notes)) == (False, None, 2)
