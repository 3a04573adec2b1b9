"""Wire models of /principals and /keys."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from control_plane.contracts.base import NOT_BLANK, Reason, Request, View, storable
from control_plane.domain.governance import Role, Scope

Person = Annotated[
    str,  # and no type that has a validator: space around it would be taken away after its length was looked at
    StringConstraints(strip_whitespace=True, min_length=1, max_length=120),
    AfterValidator(storable),
    Field(json_schema_extra=NOT_BLANK),
]
Pattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_*?\[\]!-]{1,60}$")]  # fnmatch on model names


class PrincipalView(View):
    """A person (or a product service) and one role of theirs on the models the patterns match."""

    id: UUID
    person: str
    role: Role
    models: list[str]
    automated: bool = False  # a program: bound by approval tiers, and never an approver
    created_at: datetime
    disabled_at: datetime | None


class KeySpec(Request):
    """A new key for `person` in `role`; the principal is made when there is none like it yet."""

    person: Person
    role: Role
    models: Annotated[list[Pattern], Field(min_length=1, max_length=50)] = ["*"]
    scopes: Annotated[list[Scope], Field(max_length=5)] = []
    automated: bool = False  # `person` is a program: bound by approval tiers, and never an approver
    expires_in_s: Annotated[int, Field(gt=0, le=10 * 366 * 86_400)] | None = None
    rate_limit_rps: Annotated[float, Field(gt=0, le=1_000_000, examples=[100.0])] | None = None
    reason: Reason


class KeyView(View):
    id: UUID
    person: str
    role: Role
    models: list[str]
    scopes: list[str]
    prefix: str  # its first characters, to recognise it by
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    automated: bool = False  # a program's
    rate_limit_rps: float | None = None  # predictions a second, of all models and routers together


class KeyCreated(KeyView):
    secret: str  # shown this once, kept nowhere
