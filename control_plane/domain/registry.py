"""What MLflow's registry means to us. Pure.

Digests of artifact trees, the model.yaml a foreign version gets, what to do about an alias that is not where it should
be, and the words a data scientist reads in MLflow about the gates.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import cast

from control_plane.domain import model_config
from control_plane.domain.model_config import Feature, FeatureType, ModelConfig, Problem

NATIVE_FOLDER = "artifacts/native"  # in the artifact of a version of our own pipeline; its digest covers this folder
_TYPES = {
    "boolean": FeatureType.BOOLEAN,
    "integer": FeatureType.INTEGER,
    "long": FeatureType.INTEGER,
    "float": FeatureType.NUMBER,
    "double": FeatureType.NUMBER,
    "string": FeatureType.TEXT,
}
_OPEN, _CLOSE = "**Control plane**", "*(end of the control plane's report)*"


def tree_digest(files: Iterable[tuple[str, str]]) -> str:
    """ "sha256:<hex>" of a tree given as (relative POSIX path, hex SHA-256 of the content) pairs, in any order.

    It is the SHA-256 of what `sha256sum` prints for the tree sorted bytewise. ValueError for no files at all: an empty
    download must not look like an artifact.
    """
    lines = [f"{content}  {path}\n".encode() for path, content in sorted(files, key=lambda file: file[0].encode())]
    if not lines:
        raise ValueError("no files")
    return f"sha256:{sha256(b''.join(lines)).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Inferred:
    """`config` has every feature that could be made out; `problems` says what keeps the version from serving."""

    config: ModelConfig
    problems: tuple[str, ...]


def name_problem(name: str) -> str | None:
    """Why a registered model of this name cannot be routed, None if it can."""
    if re.fullmatch(model_config.MODEL_NAME, name):
        return None
    return f"name: {name!r} must match {model_config.MODEL_NAME}; register it under such a name to have it served"


def infer(name: str, mlmodel: Mapping[str, object]) -> Inferred:
    """The config of a version that has no model.yaml, from its parsed MLmodel file.

    The problem is OPAQUE: a signature types the output but does not say what it means, so no gate on a metric can pass.
    Optional columns become nullable features. Strings are text: their categories are not known.
    """
    problems: list[str] = []
    if "python_function" not in _mapping(mlmodel.get("flavors")):
        problems.append("flavors: the version has no python_function flavor, so nothing here can run it")
    features: dict[str, Feature] = {}
    for position, column in enumerate(_inputs(mlmodel, problems)):
        column_name, kind = column.get("name"), column.get("type")
        if kind == "tensor" or not column_name:
            problems.append(f"signature: input {position} is a {kind} without a column name; log a DataFrame signature")
        elif not isinstance(kind, str) or kind not in _TYPES:
            known = ", ".join(_TYPES)
            problems.append(f"signature: column {column_name!r} has type {kind}; served are {known}")
        else:
            features[str(column_name)] = Feature(_TYPES[kind], nullable=column.get("required") is False)
    return Inferred(ModelConfig(name=name, problem=Problem.OPAQUE, features=features), tuple(problems))


def _inputs(mlmodel: Mapping[str, object], problems: list[str]) -> list[Mapping[str, object]]:
    raw = _mapping(mlmodel.get("signature")).get("inputs")
    if raw is None:
        problems.append("signature: the version has none; log it with signature= or input_example=")
        return []
    try:
        columns: object = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        columns = None
    if not isinstance(columns, list) or not columns:
        problems.append("signature: its inputs cannot be read")
        return []
    return [_mapping(column) for column in cast("list[object]", columns)]


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


class Mirror(StrEnum):
    CONVERGED = "converged"  # MLflow says what we want
    APPLY = "apply"  # MLflow says what we last wrote: our newest wish has still to be written
    FOUND = "found"  # it was there before we came and we want nothing there: not ours to remove
    HAND_MOVED = "hand-moved"  # MLflow says what we never wrote


@dataclass(frozen=True, slots=True)
class Written:
    """What is remembered about one alias. None is "no such alias".

    `writing`: the value of a write that was begun and perhaps not recorded ("": its removal); finding that in MLflow is
    our own doing. `observed`: what was there at the last look.
    """

    last_applied: str | None = None
    observed: str | None = None
    writing: str | None = None


def mirror(desired: str | None, observed: str | None, written: Written | None) -> Mirror:
    """What to do about one alias. `written` None: it is looked at for the first time."""
    if observed == desired:
        return Mirror.CONVERGED
    known = written or Written(observed=observed)
    if known.writing is None:
        untouched = desired is None and known.last_applied is None and known.observed == observed
        return Mirror.FOUND if untouched else _whose(observed, known.last_applied)
    return _whose(observed, known.last_applied, known.writing or None)


def _whose(observed: str | None, *ours: str | None) -> Mirror:
    return Mirror.APPLY if observed in ours else Mirror.HAND_MOVED


@dataclass(frozen=True, slots=True)
class Report:
    """What a version's gates say, in MLflow's own places: tags `mlcp.stage`, `mlcp.gates`, and the description."""

    stage: str
    gates: str
    paragraph: str

    @property
    def hash(self) -> str:
        return sha256("\0".join((self.stage, self.gates, self.paragraph)).encode()).hexdigest()


def report(stage: str, missing: Sequence[str]) -> Report:
    """`missing`: a sentence for every gate to Production that does not pass; empty if all do."""
    if not missing:
        return Report(stage, "all passed", f"{_OPEN}: every gate to Production passes.\n\n{_CLOSE}")
    gates = [text.partition(":")[0].strip() for text in missing]
    listed = "\n".join(f"- {text}" for text in missing)
    return Report(
        stage,
        f"missing: {', '.join(dict.fromkeys(gates))}"[:4_900],  # MLflow's tags end at 5,000 characters
        f"{_OPEN}: not eligible for Production. It may serve in Staging or as a shadow. What is missing:\n\n{listed}"
        f"\n\n{_CLOSE}",
    )


def described(description: str, paragraph: str) -> str:
    """`description` with our paragraph at its end, in place of the one it had; people's own words stay."""
    kept, opened, rest = description.partition(_OPEN)
    after = rest.partition(_CLOSE)[2] if opened else ""
    own = "\n\n".join(part for part in (kept.strip(), after.strip()) if part)
    return f"{own}\n\n{paragraph}" if own else paragraph
