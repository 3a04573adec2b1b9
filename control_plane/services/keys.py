"""API keys: who a bearer token is, and issuing, replacing and revoking them."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, wake
from control_plane.adapters.store import keys as store
from control_plane.adapters.store.keys import Holder
from control_plane.adapters.store.tables import PrincipalRow
from control_plane.contracts.keys import KeyCreated, KeySpec, KeyView, PrincipalView
from control_plane.domain.governance import Grant, Role
from control_plane.errors import Conflict, Unauthenticated
from control_plane.services.cutover import Cause

_PREFIX = "mlcp_"  # lets secret scanners find a leaked key
_SHOWN = 12  # characters


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from."""

    id: UUID
    proof: str  # the id of the key, or the subject of the token, that was shown
    person: str
    grant: Grant
    automated: bool = False  # a program's


def new_secret() -> str:
    """256 random bits, recognisable as ours."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """What is stored. Plain SHA-256 is enough: nobody guesses 256 bits."""
    return sha256(secret.encode()).digest()


async def authenticate(session: AsyncSession, secret: str, *, now: datetime) -> Principal:
    """Raises Unauthenticated for a key that is unknown, expired or revoked, without saying which."""
    holder = await store.by_hash(session, digest(secret))
    if holder is None or not alive(holder, now):
        raise Unauthenticated("The key is not valid: unknown, expired or revoked.", kind="key")
    await store.used(session, holder.key, now=now)
    return principal_of(holder)


def principal_of(holder: Holder) -> Principal:
    principal, key = holder.principal, holder.key
    grant = Grant(Role(principal.role), tuple(principal.models), tuple(key.scopes))
    return Principal(principal.id, str(key.id), principal.person, grant, principal.automated)


async def create(session: AsyncSession, spec: KeySpec, *, cause: Cause, now: datetime) -> KeyCreated:
    expires = None if spec.expires_in_s is None else now + timedelta(seconds=spec.expires_in_s)
    made, secret = await _issue(session, spec, expires, now=now)
    await wake.notify(session, "keys")
    await _tell(session, "key.create", made, cause, reason=spec.reason)
    return KeyCreated.model_validate({**_facts(made), "secret": secret})


async def rotate(session: AsyncSession, key_id: UUID, reason: str, *, cause: Cause, now: datetime) -> KeyCreated:
    """A new key in place of an old one, for the same principal, scopes and expiry. The old one ends at once."""
    old = await store.load(session, key_id, lock=True)
    if not alive(old, now):
        raise Conflict(f"Key {key_id} is revoked or has expired; make a new one.", key=str(key_id))
    secret = new_secret()
    was = old.key
    fresh = await save(
        session,
        old.principal.id,
        secret,
        list(was.scopes),
        was.expires_at,
        rate_limit_rps=was.rate_limit_rps,
        now=now,
    )
    await store.revoke(session, key_id, now=now)
    made = await store.load(session, fresh)
    await wake.notify(session, "keys")
    await _tell(session, "key.rotate", made, cause, reason=reason, replaces=key_id)
    return KeyCreated.model_validate({**_facts(made), "secret": secret})


async def revoke(session: AsyncSession, key_id: UUID, reason: str, *, cause: Cause, now: datetime) -> KeyView:
    """The key is refused from now on, by routers with their next snapshot. Conflict when it was revoked before."""
    holder = await store.load(session, key_id, lock=True)
    if holder.key.revoked_at is not None:
        raise Conflict(f"Key {key_id} was revoked before.", key=str(key_id))
    await store.revoke(session, key_id, now=now)
    shown = await store.load(session, key_id)
    await wake.notify(session, "keys")
    await _tell(session, "key.revoke", shown, cause, reason=reason)
    return KeyView.model_validate(_facts(shown))


def view(holder: Holder) -> KeyView:
    return KeyView.model_validate(_facts(holder))


def principal_view(row: PrincipalRow) -> PrincipalView:
    return PrincipalView.model_validate(row, from_attributes=True)


def alive(holder: Holder, now: datetime) -> bool:
    """Whether the key works at `now`."""
    key = holder.key
    expired = key.expires_at is not None and key.expires_at <= now
    return key.revoked_at is None and not expired and holder.principal.disabled_at is None


async def _issue(
    session: AsyncSession, spec: KeySpec, expires: datetime | None, *, now: datetime
) -> tuple[Holder, str]:
    owner = await store.principal(session, spec.person, spec.role, list(spec.models), automated=spec.automated, now=now)
    secret = new_secret()
    scopes = [scope.value for scope in spec.scopes]
    key_id = await save(session, owner, secret, scopes, expires, rate_limit_rps=spec.rate_limit_rps, now=now)
    return await store.load(session, key_id), secret


async def save(
    session: AsyncSession,
    owner: UUID,
    secret: str,
    scopes: list[str],
    expires: datetime | None,
    *,
    rate_limit_rps: float | None = None,
    now: datetime,
) -> UUID:
    return await store.add(
        session,
        owner,
        digest=digest(secret),
        prefix=secret[:_SHOWN],
        scopes=scopes,
        expires_at=expires,
        rate_limit_rps=rate_limit_rps,
        now=now,
    )


async def _tell(
    session: AsyncSession, action: str, holder: Holder, cause: Cause, *, reason: str, replaces: UUID | None = None
) -> None:
    key = view(holder).model_dump(mode="json", exclude={"last_used_at"})
    await audit.append(
        session,
        action,
        actor=cause.actor,
        object=f"key:{holder.key.id}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=None if replaces is None else {"key": str(replaces)},
        after=key,
        reasons=[reason],
    )


def _facts(holder: Holder) -> dict[str, Any]:
    key, principal = holder.key, holder.principal
    own = ("id", "prefix", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at", "rate_limit_rps")
    shown = {name: getattr(key, name) for name in own}
    owner = {name: getattr(principal, name) for name in ("person", "role", "models", "automated")}
    return {**shown, **owner}
