"""Wire models of /policies, and the templates that come with the product."""

from datetime import datetime
from importlib.resources import files
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from control_plane.contracts.base import ModelName, Moment, Reason, Request, Text, View
from control_plane.contracts.rollouts import Change
from control_plane.domain.governance import policy
from control_plane.domain.governance.decide import Outcome, Status
from control_plane.domain.governance.policy import Operation, Policy, Severity, Source
from control_plane.errors import InvalidInput

Template = Literal["dev", "prod"]
_POLICY = TypeAdapter(Policy)


class HaltView(View):
    at: datetime
    by: str
    reason: str
    resumed_at: datetime | None = None
    resumed_by: str | None = None


class PolicyView(View):
    """`version` None: a template that comes with the product."""

    name: str
    document: dict[str, Any]
    version: int | None = None
    applied_at: datetime | None = None
    applied_by: str | None = None
    reason: str | None = None
    in_force: bool = False
    halted: HaltView | None = None  # nothing happens by itself


class PolicySpec(Request):
    """A document of `kind: policy`, as `mlcp apply -f` reads it."""

    document: dict[str, Any]
    reason: Reason


class PolicyPlanView(View):
    """What applying a policy would change. Nothing is written."""

    changes: list[Change]
    needs_approval: bool


class SignalSpec(Request):
    """Something that was noticed. `id` names it: the same id and status again is the same signal."""

    name: Annotated[Text, Field(min_length=1, max_length=200)]
    source: Source = Source.ALERT
    model: ModelName | None = None
    severity: Severity = Severity.WARNING
    status: Status = Status.FIRING
    id: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    at: Moment | None = None
    facts: Annotated[dict[str, Any], Field(max_length=50)] = {}


class ActView(View):
    """`outcome`: do, ask, leave or hold. `effect`: whether it helped, once that was looked at."""

    operation: Operation
    outcome: Outcome
    why: str
    state: str | None = None  # wanted, done, failed, held, left; null: a dry run
    result: dict[str, Any] | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    effect: str | None = None
    done_at: datetime | None = None


class DecisionView(View):
    """What follows from a signal, and why. `inputs`: everything it was decided from."""

    id: UUID | None = None  # of the signal; null: a dry run
    source: Source
    name: str
    model: str | None
    status: Status
    at: datetime
    diagnosis: str | None
    severity: Severity
    text: str
    acts: list[ActView]
    inputs: dict[str, Any]


def template(name: Template) -> Policy:
    """One of the policies that come with the product."""
    import yaml  # of the server's extra; who only reads views has no need of it

    text = files("control_plane.contracts").joinpath("templates", f"{name}.yaml").read_text()
    return parsed(cast("dict[str, Any]", yaml.safe_load(text)))


def parsed(document: dict[str, Any]) -> Policy:
    """The policy a document (`kind: policy`) describes. InvalidInput with every reason it cannot be used for."""
    given = {name: value for name, value in document.items() if name != "kind"}
    reasons = [] if document.get("kind") == "policy" else ["kind: must be policy."]
    try:
        found = _POLICY.validate_python(given)
    except ValidationError as exc:
        reasons += [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()]
        raise InvalidInput("The policy cannot be used.", reasons=reasons) from exc
    reasons += policy.problems(found)
    if reasons:
        raise InvalidInput("The policy cannot be used.", reasons=reasons)
    return found
