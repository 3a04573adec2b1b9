"""manifest.json: everything a native artifact says about itself except its arrays.

Read without pydantic: a model server imports this with nothing but the standard library and numpy at hand.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

FORMAT = 1

Kind = Literal["linear", "tfidf_linear", "xgboost", "lightgbm", "forest"]
Op = Literal["number", "bins", "onehot", "ordinal"]


class BadArtifact(ValueError):
    """The folder is not a native artifact this runtime can serve; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One member of `features` in the predict body. `categories`: those seen in training; others score as unseen."""

    name: str
    type: Literal["number", "integer", "boolean", "category", "text"]
    nullable: bool = False
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """How one feature becomes columns of the matrix the scorer reads.

    number   the value x limited to `low`..`high`, then max(0, x - k) per knot k (a piecewise linear effect); null
             becomes `fill`, or NaN where `fill` is None; `null` adds a 0/1 column "was null"
    bins     one 0/1 column per interval of a number between `knots`, upper ends excluded; `null` adds one for null
    onehot   one 0/1 column per value of `values`; `null` adds one for null; unseen values are all zeros
    ordinal  one column: the value's position in `values`; null and unseen are NaN
    """

    feature: str
    op: Op
    values: tuple[str, ...] = ()
    knots: tuple[float, ...] = ()
    fill: float | None = None
    null: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def width(self) -> int:
        match self.op:
            case "number":
                return 1 + len(self.knots) + self.null
            case "bins":
                return len(self.knots) + 1 + self.null
            case "onehot":
                return len(self.values) + self.null
            case "ordinal":
                return 1


@dataclass(frozen=True, slots=True)
class TextBlock:
    """TF-IDF of one text feature by n-grams of `low` to `high` words, or characters inside word boundaries.

    Its vocabulary (n-grams in column order) is the JSON list in `vocabulary`, a file beside the manifest. One feature
    may have several blocks; each is normalised on its own.
    """

    feature: str
    analyzer: Literal["word", "char"]
    low: int
    high: int
    vocabulary: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """Raw probability -> calibrated one, by linear interpolation in (x, y); x rises strictly, y never falls."""

    method: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    model: str
    semver: str
    problem: Literal["binary", "multiclass", "regression"]
    kind: Kind
    features: tuple[Feature, ...]
    columns: tuple[Column, ...]
    text: tuple[TextBlock, ...] = ()
    classes: tuple[str, ...] = ()  # binary: (negative, positive) as written in the training data
    threshold: float | None = None  # binary: decide "positive" where the calibrated probability reaches it
    decision: tuple[str, str] | None = None  # the words for (negative, positive)
    calibration: Calibration | None = None
    temperature: float = 1.0  # multiclass: margins are divided by it before softmax

    @property
    def outputs(self) -> int:
        """Margins per row: one per class of a multiclass problem, else one."""
        return len(self.classes) if self.problem == "multiclass" else 1


def read(folder: Path) -> Manifest:
    """Raises BadArtifact for a missing or malformed manifest, or one of another format."""
    path = folder / "manifest.json"
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BadArtifact(f"{path}: {type(exc).__name__}: {exc}") from exc


def parse(raw: dict[str, Any]) -> Manifest:
    if raw["format"] != FORMAT:
        raise BadArtifact(f"format {raw['format']!r} is not {FORMAT}")
    calibration = raw.get("calibration")
    return Manifest(
        model=raw["model"],
        semver=raw["semver"],
        problem=raw["problem"],
        kind=raw["kind"],
        features=tuple(
            Feature(
                name=f["name"],
                type=f["type"],
                nullable=f.get("nullable", False),
                range=_pair(f.get("range")),
                categories=_strings(f.get("categories")),
            )
            for f in raw["features"]
        ),
        columns=tuple(
            Column(
                feature=c["feature"],
                op=c["op"],
                values=_strings(c.get("values")) or (),
                knots=tuple(float(knot) for knot in c.get("knots", ())),
                fill=c.get("fill"),
                null=c.get("null", False),
                low=c.get("low"),
                high=c.get("high"),
            )
            for c in raw["columns"]
        ),
        text=tuple(TextBlock(t["feature"], t["analyzer"], t["low"], t["high"], t["vocabulary"]) for t in raw["text"]),
        classes=_strings(raw["classes"]) or (),
        threshold=raw.get("threshold"),
        decision=cast("tuple[str, str] | None", _strings(raw.get("decision"))),
        calibration=Calibration(calibration["method"], tuple(calibration["x"]), tuple(calibration["y"]))
        if calibration
        else None,
        temperature=float(raw.get("temperature", 1.0)),
    )


def dump(manifest: Manifest) -> dict[str, Any]:
    """The inverse of `parse`; what the training pipeline writes."""
    return {"format": FORMAT, **asdict(manifest)}


def _strings(raw: list[str] | None) -> tuple[str, ...] | None:
    return None if raw is None else tuple(raw)


def _pair(raw: list[float] | None) -> tuple[float, float] | None:
    return None if raw is None else (float(raw[0]), float(raw[1]))
