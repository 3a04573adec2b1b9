"""Who a token of the identity provider is here."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import keys as store
from control_plane.contracts.keys import Person
from control_plane.domain.governance import sign_in
from control_plane.errors import Forbidden, Unauthenticated
from control_plane.services.keys import Principal
from control_plane.settings import SignIn

_PERSON: TypeAdapter[str] = TypeAdapter(Person)
_SHOWN = 120  # characters of a subject in the audit


async def authenticate(
    session: AsyncSession, claims: Mapping[str, Any], settings: SignIn, *, now: datetime
) -> Principal:
    """The principal of verified claims, the same person as in keys made for that name.

    Raises:
        Unauthenticated: the token does not say, or not reliably, who its bearer is.
        Forbidden: none of the bearer's groups has a role here.
    """
    person = _person(claims, settings)
    mine = sign_in.groups(sign_in.claim(claims, settings.oidc_groups_claim))
    found = sign_in.membership(settings.oidc_roles, mine)
    if found is None:
        raise Forbidden(f"None of your groups has a role here; the token's {settings.oidc_groups_claim} say which.")
    grant = sign_in.grant(found)
    owner = await store.principal(session, person, grant.role, list(grant.models), automated=found.automated, now=now)
    return Principal(owner, f"oidc:{claims['sub']}"[:_SHOWN], person, grant, found.automated)


def _person(claims: Mapping[str, Any], settings: SignIn) -> str:
    name = settings.oidc_person_claim
    if name == "email" and claims.get("email_verified") is False:
        raise Unauthenticated("The identity provider has not verified the email address of this token.", kind="claim")
    try:
        return _PERSON.validate_python(sign_in.claim(claims, name), strict=True)
    except ValidationError as exc:
        raise Unauthenticated(f"The token has no {name} to know its bearer by.", kind="claim") from exc
