"""Routes of /audit."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from control_plane.adapters import signing, store
from control_plane.adapters.objects import Objects, location
from control_plane.api.auth import Requires
from control_plane.api.deps import Filter, Limit, Now, NumberCursor, Session, Settings, number_cursor
from control_plane.api.problems import responses
from control_plane.contracts.audit import AuditVerification, AuditView
from control_plane.contracts.base import Moment, Page
from control_plane.domain.checkpoints import Signed
from control_plane.domain.governance import Action
from control_plane.errors import ControlPlaneError, Forbidden, InvalidConfig, InvalidInput, Unauthenticated
from control_plane.services import audit
from control_plane.services import signing as checkpointing
from control_plane.settings import ApiSettings

_LINES = "application/x-ndjson"

router = APIRouter(
    prefix="/audit",
    tags=["audit"],
    dependencies=[Depends(Requires(Action.READ_AUDIT))],
    responses=responses(Unauthenticated, Forbidden, InvalidInput),
)


@router.get("")
async def list_audit(
    session: Session,
    action: Filter = None,
    object: Filter = None,
    actor: Filter = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = 50,
    cursor: NumberCursor = None,
) -> Page[AuditView]:
    """Links of the chain, newest first. `object` is kind:name, such as model:fraud."""
    before = number_cursor(cursor)
    found = await audit.page(
        session, before=before, limit=limit, action=action, object=object, actor=actor, since=since, until=until
    )
    return Page(items=found, next=str(found[-1].seq) if len(found) == limit else None)


@router.get("/verify")
async def verify_audit(session: Session, settings: Settings) -> AuditVerification:
    """Walk the whole chain: every link against the one before it, its columns and the signed checkpoints.

    The newest checkpoint kept outside of the database is held against both, so that what was cut off is missed.
    """
    keys, exported, notes = await asyncio.to_thread(_elsewhere, settings)
    return await audit.verify(session, keys, exported, notes=notes)


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {_LINES: {}}}})
async def export_audit(request: Request, now: Now) -> StreamingResponse:
    """The whole audit as JSON lines, to be verified elsewhere: `mlcp audit verify --export FILE --public-key FILE`."""

    async def lines() -> AsyncGenerator[bytes]:  # a transaction of its own: it lasts as long as the answer
        async with store.transaction(request.state.sessionmaker) as session:
            async for piece in audit.export(session, now=now):
                yield piece

    disposition = f'attachment; filename="audit-{now:%Y%m%dT%H%M%SZ}.jsonl"'
    return StreamingResponse(lines(), media_type=_LINES, headers={"Content-Disposition": disposition})


def _elsewhere(settings: ApiSettings) -> tuple[dict[str, bytes], Signed | None, list[str]]:
    """Public keys, the newest exported checkpoint, and what of both could not be read."""
    file = settings.audit_public_key_file or settings.home / "keys" / signing.PUBLIC
    keys, exported, notes = dict[str, bytes](), None, list[str]()
    try:
        keys = signing.public_keys(file)
    except InvalidConfig as exc:
        notes.append(exc.detail)
    if not keys:
        notes.append(f"No public key at {file}: no signature can be verified here.")
    try:
        exported = checkpointing.exported(Objects(location(settings.archive_url, settings.home), checkpointing.FOLDER))
    except ControlPlaneError as exc:
        notes.append(f"Checkpoints outside of the database cannot be read: {exc.detail}")
    return keys, exported, notes
