"""The audit chain, read."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters import signing
from control_plane.adapters.store import audit, checkpoints
from control_plane.contracts.audit import AuditVerification, AuditView, verdict
from control_plane.domain import audit_export
from control_plane.domain import checkpoints as domain
from control_plane.domain.checkpoints import Signed
from control_plane.services.signing import newest_seq


async def page(
    session: AsyncSession,
    *,
    before: int | None,
    limit: int,
    action: str | None,
    object: str | None,
    actor: str | None,
    since: datetime | None,
    until: datetime | None,
) -> list[AuditView]:
    found = await audit.page(
        session, before=before, limit=limit, action=action, object=object, actor=actor, since=since, until=until
    )
    return [AuditView.model_validate({**record, "hash": digest.hex()}) for record, digest in found]


async def verify(
    session: AsyncSession, keys: Mapping[str, bytes], exported: Signed | None, *, notes: Sequence[str] = ()
) -> AuditVerification:
    """The chain against its checkpoints, and both against the newest checkpoint kept elsewhere.

    `keys`: the public keys known here, by id. `notes`: what the caller could not read.
    """
    signed = await checkpoints.every(session)
    told = [*signed, exported] if exported else signed
    trusted = domain.trust(told, keys, signing.verify, installation=await checkpoints.installation(session))
    seen = await audit.verify(session, trusted)
    return verdict(seen, trusted, exported_to=newest_seq(exported) if exported else None, notes=notes)


async def export(session: AsyncSession, *, now: datetime) -> AsyncGenerator[bytes]:
    """Every checkpoint and every link as they are stored, in bounded memory, whether they hold or not."""
    yield audit_export.header(await checkpoints.installation(session), now)
    signed, links = await checkpoints.every(session), 0
    for one in signed:
        yield domain.serialise(one)
    async for batch in audit.batches(session):
        yield b"".join(map(audit_export.link, batch.links))
        links += len(batch.links)
    yield audit_export.end(len(signed), links)
