"""The audit chain, read."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit
from control_plane.contracts.audit import AuditVerification, AuditView


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


async def verify(session: AsyncSession) -> AuditVerification:
    seen = await audit.verify(session)
    return AuditVerification(
        ok=seen.first_bad is None,
        links=seen.links,
        first_bad=seen.first_bad,
        head_seq=seen.head.seq,
        head_hash=seen.head.hash.hex(),
    )
