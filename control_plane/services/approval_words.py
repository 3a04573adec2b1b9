"""What an approval's content means, in sentences for the person who is to agree."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from control_plane.contracts.base import PER_PERCENT
from control_plane.domain.governance.policy import Operation

_DURATION = TypeAdapter(timedelta)


def will(content: Mapping[str, Any]) -> list[str]:
    """What happens once it is approved."""
    model, version, stable = content["model"], content.get("version"), content.get("stable")
    match Operation(content["operation"]):
        case Operation.PROMOTE:
            return _promotion(model, version, stable, content["plan"])
        case Operation.DEPLOY:
            return [f"Version {version} of {model} moves to Staging: its servers start, no customer sees its answers."]
        case Operation.RETRAIN:
            given = ", ".join(f"{name} {value}" for name, value in content["arguments"].items())
            said = [f"A new version of {model} is trained ({given or 'as model.yaml says'})."]
            beside = f"Production version {stable}" if stable else "nothing, as there is no Production version"
            said.append(f"It is compared with {beside} on the same newest rows, and put into Staging if it is better.")
            return [*said, "Nothing is promoted by this: what customers see stays as it is."]
        case Operation.ROLL_BACK_SETTLED:
            return [f"Version {version} of {model} answers every customer again instead of version {stable}."]
        case Operation.SET_TRAFFIC:
            arms = ", ".join(f"version {arm['version']} {arm['weight'] / PER_PERCENT:g} %" for arm in content["arms"])
            return [f"From now on the customers of {model} are answered so: {arms}."]
        case Operation.SKIP_STEPS if content.get("verb") == "skip":
            at = int(content["step"]) + 1
            return [f"Step {at} is skipped: version {version} of {model} goes on to what comes next."]
        case Operation.SKIP_STEPS:
            return [f"The remaining steps are skipped: version {version} of {model} answers every customer."]
        case Operation.CONFIGURE:
            named = content["document"]["name"]
            lines = [f"{c['field']}: {c['before'] or 'none'} -> {c['after'] or 'none'}" for c in content["changes"]]
            return [f"The policy {named} is in force from then on.", *lines]
        case _:
            return [f"{content['operation']} of {model}."]


def _promotion(model: str, version: object, stable: str | None, plan: Mapping[str, Any]) -> list[str]:
    instead = "as its first version" if stable is None else f"instead of version {stable}"
    said = [f"Version {version} of {model} goes live {instead}, by the strategy {plan['strategy']}."]
    said += [
        f"{step['weight'] / PER_PERCENT:g} % of the customers get it for at least {_span(step['hold'])}."
        for step in plan["steps"]
    ]
    if plan["analysis"] is not None:
        names = ", ".join(metric["name"] for metric in plan["analysis"]["metrics"])
        said.append(f"Each step is decided by evidence ({names}); worse, and it is taken back.")
    elif plan["steps"]:
        said.append("Each step waits for a hand.")
    if _seconds(plan["bake"]):
        said.append(f"Then it is watched for {_span(plan['bake'])} while the version before stays warm.")
    return said


def _span(value: object) -> str:
    seconds = _seconds(value)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _seconds(value: object) -> float:
    """Of a duration as pydantic writes it into JSON."""
    return _DURATION.validate_python(value).total_seconds()
