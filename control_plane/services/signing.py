"""Signed checkpoints of the audit chain: made when they are due, brought out of the database, held against it."""

from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.objects import Objects
from control_plane.adapters.signing import Signer
from control_plane.adapters.store import audit
from control_plane.adapters.store import checkpoints as store
from control_plane.adapters.store.tables import AuditRow
from control_plane.domain import checkpoints
from control_plane.domain.audit import GENESIS, Link, Walk, walk
from control_plane.domain.checkpoints import Checkpoint, Signed

FOLDER = "audit"  # beside the archive of the log
log = structlog.get_logger()


async def sign(session: AsyncSession, signer: Signer, *, now: datetime) -> Checkpoint | None:
    """Sign what is due, one checkpoint at a time; None: nothing is, or the chain no longer holds.

    A chain that does not follow from what was signed is never signed over: verifying it names its first bad link.
    """
    newest = await store.newest(session)
    last = None if newest is None else checkpoints.parse(newest.body)
    signed_to = 0 if last is None else last.seq
    oldest = await session.scalar(select(AuditRow.at).where(AuditRow.seq > signed_to).order_by(AuditRow.seq).limit(1))
    if not checkpoints.due(await store.head(session), signed_to, oldest, now=now):
        return None
    head = GENESIS if last is None else Link(last.seq, b"", last.hashes[-32:])
    links = await audit.links(session, after=signed_to, limit=checkpoints.LARGEST)
    found = walk(links, after=Walk(head))
    if found.first_bad is not None:
        log.error("audit.not_signed", first_bad=found.first_bad, why=found.why)
        return None
    made, body = checkpoints.compose(
        links, previous=newest, installation=await store.installation(session), key=signer.key, at=now
    )
    await store.add(session, made, Signed(body, signer.sign(body)))
    return made


def name(checkpoint: Checkpoint, signed: Signed) -> str:
    """Where a checkpoint is exported to: by day, in order of the last link it covers, never over another one."""
    return f"{checkpoint.at:%Y-%m-%d}/{checkpoint.seq:020d}-{checkpoints.digest(signed.body)[:16]}.json"


def exported(objects: Objects) -> Signed | None:
    """The newest checkpoint that was exported, by name; None: there is none that can be read. Blocks."""
    for day in reversed(objects.names()):
        for file in reversed(objects.names(day)):
            try:
                return checkpoints.deserialise(objects.read(f"{day}/{file}"))
            except ValueError:
                log.error("audit.export_unreadable", file=f"{day}/{file}")
    return None


def newest_seq(signed: Signed | None) -> int:
    """The last link a checkpoint covers; 0 for none, or one that cannot be read."""
    try:
        return 0 if signed is None else checkpoints.parse(signed.body).seq
    except ValueError:
        return 0
