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
    "predictor": First("product-service", Role.PREDICTOR, (Scope.PREDICT, Scope.PIN)),
}


async def prepare(session: AsyncSession, folder: Path, *, cause: Cause, now: datetime) -> Sequence[str]:
    """Write what the database should hold; return the names whose new key waits in `folder` for `publish`.

    The secret is in its file, under a name nobody reads yet, before the commit: a crash after the commit loses
    nothing, one before it leaves a file that the next start replaces. A key whose file is lost is revoked.
    """
    made = await installation.ensure(session, now=now)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = [name for name in FIRST if not await _in_force(session, folder, name, now)]
    issued: list[tuple[str, list[UUID], UUID]] = []
    for name in fresh:
        issued.append((name, *await _issue(session, folder, name, now=now)))
    if made or issued:
        after = [{"name": name, "key": str(new), "revoked": [str(key) for key in old]} for name, old, new in issued]
        await audit.append(
            session,
            "installation.prepare",
            actor=cause.actor,
            object="installation:keys",
            trigger=cause.trigger,
            after=after,
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


async def _issue(session: AsyncSession, folder: Path, name: str, *, now: datetime) -> tuple[list[UUID], UUID]:
    """(revoked, new) key ids of one of the first principals."""
    first = FIRST[name]
    owner = await store.principal(session, first.person, first.role, ["*"], now=now)
    lost = [holder.key.id for holder in await store.of_principal(session, owner) if keys.alive(holder, now)]
    for key_id in lost:
        await store.revoke(session, key_id, now=now)
    secret = keys.new_secret()
    _write(_waiting(folder, name), secret)
    new = await keys.save(session, owner, secret, list(first.scopes), None, now=now)
    return lost, new


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
