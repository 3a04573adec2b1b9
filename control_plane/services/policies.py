"""The policy in force: applied, read, halted, tried."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, wake
from control_plane.adapters.store import policies as store
from control_plane.adapters.store.tables import PolicyRow
from control_plane.contracts import policies as contract
from control_plane.contracts.policies import HaltView, PolicyView, Template
from control_plane.contracts.rollouts import Change
from control_plane.domain.governance.policy import Policy
from control_plane.errors import Conflict
from control_plane.services.cutover import Cause

_OBJECT = "installation:policy"
_POLICY = TypeAdapter(Policy)


async def in_force(session: AsyncSession, fallback: Template) -> Policy:
    """The newest that was applied; before there is one, the template."""
    row = await store.newest(session)
    return contract.template(fallback) if row is None else contract.parsed(row.document)


async def current(session: AsyncSession, fallback: Template) -> PolicyView:
    row = await store.newest(session)
    halt = await store.halt(session)
    halted = None if halt is None else HaltView.model_validate(halt, from_attributes=True)
    if row is None:
        return template(fallback).model_copy(update={"in_force": True, "halted": halted})
    return view(row).model_copy(update={"in_force": True, "halted": halted})


def template(name: Template) -> PolicyView:
    return PolicyView(name=name, document=written(contract.template(name)))


def view(row: PolicyRow) -> PolicyView:
    return PolicyView(
        version=row.version,
        name=str(row.document.get("name")),
        document=row.document,
        applied_at=row.applied_at,
        applied_by=row.applied_by,
        reason=row.reason,
    )


def written(policy: Policy) -> dict[str, Any]:
    """Its document, with everything that was left to defaults."""
    document: dict[str, Any] = _POLICY.dump_python(policy, mode="json")
    return {"kind": "policy", **document}


async def apply(
    session: AsyncSession, document: Mapping[str, Any], reason: str, *, cause: Cause, now: datetime
) -> PolicyView:
    """In force from now on. InvalidInput with every reason it cannot be."""
    policy = contract.parsed(dict(document))
    before = await store.newest(session)
    row = await store.add(session, written(policy), applied_by=cause.actor.person, reason=reason, now=now)
    await wake.notify(session, "policy")
    was = None if before is None else {"version": before.version, "document": before.document}
    after = {"version": row.version, "document": row.document}
    await _tell(session, "policy.apply", cause, reason, before=was, after=after)
    return view(row).model_copy(update={"in_force": True})


async def halt(session: AsyncSession, reason: str, *, cause: Cause, now: datetime) -> HaltView:
    """Nothing happens by itself any more. Conflict when that is so already."""
    if (row := await store.halt(session)) is not None:
        raise Conflict(f"Everything is halted since {row.at:%Y-%m-%d %H:%M} by {row.by}: {row.reason}")
    await store.begin_halt(session, by=cause.actor.person, reason=reason, now=now)
    await _tell(session, "policy.halt", cause, reason, before=None, after={"halted": True})
    return HaltView(at=now, by=cause.actor.person, reason=reason)


async def resume(session: AsyncSession, reason: str, *, cause: Cause, now: datetime) -> HaltView:
    """What was held meanwhile is not made up for. Conflict when nothing is halted."""
    row = await store.halt(session)
    if row is None:
        raise Conflict("Nothing is halted.")
    was = HaltView.model_validate(row, from_attributes=True)
    await store.end_halt(session, by=cause.actor.person, now=now)
    await wake.notify(session, "policy")
    await _tell(session, "policy.resume", cause, reason, before={"halted": True}, after=None)
    return was.model_copy(update={"resumed_at": now, "resumed_by": cause.actor.person})


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs, a line for each leaf."""
    was, now = dict(_leaves(before)), dict(_leaves(after))
    names = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return [Change(field=name, before=was.get(name), after=now.get(name)) for name in names]


def _leaves(value: object, path: str = "") -> list[tuple[str, str]]:
    items: list[tuple[str, object]] = []
    match value:
        case dict():
            items = [(str(name), item) for name, item in value.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list():
            items = [(str(at), item) for at, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case None:
            return []
        case _:
            return [(path, str(value))]
    return [leaf for name, item in items for leaf in _leaves(item, f"{path}.{name}" if path else name)]


async def _tell(
    session: AsyncSession, action: str, cause: Cause, reason: str, *, before: object, after: object
) -> None:
    await audit.append(
        session,
        action,
        actor=cause.actor,
        object=_OBJECT,
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=before,
        after=after,
        reasons=[reason],
        approver=cause.approver,
    )
