"""First start: the installation, the first persons and their keys. Idempotent, and safe to be cut off anywhere."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, installation
from control_plane.adapters.store import keys as store
from control_plane.domain.governance import Role, Scope
from control_plane.services import keys
from control_plane.services.cutover import Cause


@dataclass(frozen=True, slots=True)
class First:
    """A principal there is from the start, and the file its key is in."""

    person: str
    role: Role
    scopes: tuple[str, ...] = ()


FIRST: Mapping[str, First] = {  # file name -> whose
    "admin": First("admin", Role.ADMIN),
    "approver": First("approver", Role.APPROVER),
    "predictor": First("product-service", Role.PREDICTOR, (Scope.PREDICT,)),
}


_ACTION = "installation.prepare"


async def prepare(session: AsyncSession, folder: Path, *, cause: Cause, now: datetime) -> Sequence[str]:
    """Write what the database should hold; return the names whose new key waits in `folder` for `publish`.

    The secret is in its file, under a name nobody reads yet, before the commit: a crash after the commit loses
    nothing, one before it leaves a file that the next start replaces. A key whose file is lost is revoked.
    """
    made = await installation.ensure(session, now=now)
    _make(folder)
    fresh = [name for name in FIRST if not await _in_force(session, folder, name, now)]
    earlier = await _issued_before(session) if fresh else {}
    issued = [await _issue(session, folder, name, earlier.get(name), now=now) for name in fresh]
    if made or issued:
        await audit.append(
            session,
            _ACTION,
            actor=cause.actor,
            object="installation:keys",
            trigger=cause.trigger,
            after=issued,
            reasons=["First start." if made else "A key file was lost or did not match."],
        )
    return fresh


def publish(folder: Path, names: Sequence[str]) -> None:
    """After the commit: put each new key in its place."""
    for name in names:
        _waiting(folder, name).rename(_file(folder, name))


async def _in_force(session: AsyncSession, folder: Path, name: str, now: datetime) -> bool:
    """Whether the file holds a key that works; a waiting one that was committed before a crash is put in place."""
    for path in (_file(folder, name), _waiting(folder, name)):
        if path.is_file() and await _works(session, path.read_text().strip(), now):
            if path != _file(folder, name):
                path.rename(_file(folder, name))
            return True
    return False


async def _works(session: AsyncSession, secret: str, now: datetime) -> bool:
    holder = await store.by_hash(session, keys.digest(secret))
    return holder is not None and keys.alive(holder, now)


async def _issued_before(session: AsyncSession) -> dict[str, UUID]:
    """The key last issued here under each name, from the audit chain; keys people made are not among them."""
    found: dict[str, UUID] = {}
    for record, _ in await audit.page(session, before=None, limit=200, action=_ACTION):
        for entry in record["after"]:
            found.setdefault(entry["name"], UUID(entry["key"]))
    return found


async def _issue(
    session: AsyncSession, folder: Path, name: str, earlier: UUID | None, *, now: datetime
) -> dict[str, str | None]:
    """A new key of one of the first principals, in place of the earlier one; what the audit says of it."""
    first = FIRST[name]
    owner = await store.principal(session, first.person, first.role, ["*"], now=now)
    if earlier is not None:
        await store.revoke(session, earlier, now=now)
    secret = keys.new_secret()
    _write(_waiting(folder, name), secret)
    new = await keys.save(session, owner, secret, list(first.scopes), None, now=now)
    return {"name": name, "key": str(new), "revoked": None if earlier is None else str(earlier)}


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def _waiting(folder: Path, name: str) -> Path:
    return folder / f".{name}.key.new"
