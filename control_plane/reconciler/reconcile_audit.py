"""The audit chain is signed, and its signatures are brought out of the database. Nothing else waits for either."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from control_plane.adapters import signing
from control_plane.adapters.metrics import Level, Metrics
from control_plane.adapters.objects import Objects, location
from control_plane.adapters.signing import Signer
from control_plane.adapters.store import checkpoints as store
from control_plane.domain import checkpoints
from control_plane.errors import InvalidConfig
from control_plane.reconciler.context import Context
from control_plane.services import signing as service
from control_plane.settings import ReconcilerSettings
from control_plane.telemetry import Metric

log = structlog.get_logger()


@dataclass(slots=True)
class Memory:
    """Where this leader has got to; a new one asks the database and the archive."""

    unsigned: Level
    signer: Signer | None = None
    refused: bool = False  # said once that there is no key
    exported: int | None = None  # the newest link under an exported checkpoint

    @classmethod
    def fresh(cls, metrics: Metrics) -> "Memory":
        what = "Links of the audit chain that no checkpoint outside of the database covers."
        return cls(metrics.gauge(Metric.AUDIT_UNSIGNED, what))


async def look(context: Context, memory: Memory) -> bool:
    """Sign what is due, then export what is not there yet; always True: nothing makes it urgent.

    Unavailable: the archive is; it is tried again.
    """
    if (signer := await asyncio.to_thread(_signer, context.settings, memory)) is not None:
        made = None
        while True:
            async with context.leading() as session:
                made = await service.sign(session, signer, now=datetime.now(UTC))
            if made is None:
                break
            log.info("audit.signed", after=made.after, seq=made.seq)
    objects = Objects(location(context.settings.archive_url, context.settings.home), service.FOLDER)
    try:
        if memory.exported is None:
            memory.exported = service.newest_seq(await asyncio.to_thread(service.exported, objects))
        async with context.sessions() as session:
            waiting = await store.every(session, after=memory.exported)
        for signed in waiting:
            checkpoint = checkpoints.parse(signed.body)
            await asyncio.to_thread(objects.put, service.name(checkpoint, signed), checkpoints.serialise(signed))
            memory.exported = checkpoint.seq
    finally:
        async with context.sessions() as session:
            memory.unsigned.set(max(0, await store.head(session) - (memory.exported or 0)))
    return True


def _signer(settings: ReconcilerSettings, memory: Memory) -> Signer | None:
    """None, said once, where there is no key: nothing is signed, and the gauge tells how much."""
    if memory.signer is None:
        given = settings.audit_signing_key
        file = settings.audit_signing_key_file or settings.home / "keys" / signing.PRIVATE
        try:
            memory.signer = signing.load(file, given.get_secret_value() if given else None)
        except InvalidConfig as exc:
            if not memory.refused:
                log.error("audit.not_signed", why=exc.detail)
            memory.refused = True
    return memory.signer
