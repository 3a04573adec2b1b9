"""What somebody may whom an identity provider vouches for. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from control_plane.domain.governance.access import Grant, Role


@dataclass(frozen=True, slots=True)
class Membership:
    """What belonging to a group (or having a role) at the provider is worth here."""

    role: Role
    models: tuple[str, ...] = ("*",)  # patterns of model names
    automated: bool = False  # its members are programs: bound by approval tiers, and never an approver


def membership(known: Mapping[str, Membership], groups: Sequence[str]) -> Membership | None:
    """The first of `known`, in its order, that the groups name; None: they are worth nothing here.

    A principal has one role. Which of several counts is written down by whoever maps them, not guessed.
    """
    return next((found for group, found in known.items() if group in groups), None)


def grant(found: Membership) -> Grant:
    return Grant(found.role, found.models)


def claim(claims: Mapping[str, object], name: str) -> object:
    """A claim by its name, or by its path: `realm_access.roles` is one inside of another. None where there is none."""
    if name in claims:
        return claims[name]
    head, dot, rest = name.partition(".")
    inner = claims.get(head)
    if not dot or not isinstance(inner, Mapping):
        return None
    return claim(cast("Mapping[str, object]", inner), rest)


def groups(found: object) -> tuple[str, ...]:
    """The groups of a claim: a list of names, or names with spaces between them as in `scope`."""
    if isinstance(found, str):
        return tuple(found.split())
    if isinstance(found, Sequence):
        return tuple(group for group in cast("Sequence[object]", found) if isinstance(group, str))
    return ()
