"""What a product service needs: ask a model, and report later what really happened.

    with PredictionClient() as ml:
        answer = ml.predict("fraud", {"amount": 120.5, ...}, unit_id=customer)
        if answer.decision == "block": ...
        ml.outcome("fraud", True, prediction_id=answer.prediction_id)

Code that takes a `Predictions` is tested with `control_plane.sdk.testing.FakePredictions`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, JsonValue

from control_plane.sdk import batches, config
from control_plane.sdk.binding import coroutine, method
from control_plane.sdk.transport import AsyncTransport, Call, Patience, SyncTransport, path, read

# One more try, soon: whoever waits for a prediction would rather have an error than a late answer.
QUICK = Patience(attempts=2, budget_s=2.0, first_wait_s=0.05)


class Answer(BaseModel):
    """What a model said about one row. `output` is what its problem says: a probability, a label, a value."""

    model_config = ConfigDict(frozen=True)

    output: JsonValue = None
    decision: str | None = None  # the word model.yaml declares for what to do
    threshold: float | None = None  # the probability from which `decision` says yes
    reasons: list[str] = []  # in words, where the model explains itself

    @property
    def probability(self) -> float | None:
        """Binary: of the positive class. Multiclass: of `label`. None: the model gives none."""
        found = self._member("probability")
        return float(found) if isinstance(found, int | float) else None

    @property
    def label(self) -> str | None:
        """Multiclass: the most probable class."""
        found = self._member("label")
        return found if isinstance(found, str) else None

    @property
    def value(self) -> JsonValue:
        """Regression: the number. A model of somebody else's: whatever it returned."""
        return self._member("value")

    def _member(self, name: str) -> JsonValue:
        return self.output.get(name) if isinstance(self.output, dict) else None


class Prediction(Answer):
    """A logged answer."""

    prediction_id: str  # name it when you report the outcome
    model: str
    model_version: str
    variant: str | None = None  # stable | candidate | baseline; None: pinned, or no unit_id to assign by
    logged: bool = True  # False: answered, but the record could not be kept


class Batch(BaseModel):
    """Answers of one version to many rows, in their order."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    predictions: list[Answer]


class Explanation(BaseModel):
    """`contributions` and `base` add up to the score in `space` (margin or probability), of class `of`."""

    model_config = ConfigDict(frozen=True)

    space: str
    of: str | None = None
    base: float
    contributions: dict[str, float]
    reasons: list[str] = []


class Explained(Answer):
    """An answer with what each feature contributed to it. Not logged."""

    explanation: Explanation


class Taken(BaseModel):
    """Outcomes that are safe on the data plane's disk, on their way to Postgres."""

    model_config = ConfigDict(frozen=True)

    accepted: int


class Predictions(Protocol):
    """What product code should ask for: `PredictionClient` in production, `FakePredictions` in its tests."""

    def predict(
        self, model: str, features: Mapping[str, object], *, unit_id: str | None = None, request_id: str | None = None
    ) -> Prediction: ...

    def outcome(
        self,
        model: str,
        value: float | bool | str,
        *,
        prediction_id: UUID | str | None = None,
        unit_id: str | None = None,
        name: str = "label",
        currency: str | None = None,
        observed_at: datetime | None = None,
    ) -> Taken: ...


def predict(
    model: str,
    features: Mapping[str, object],
    *,
    unit_id: str | None = None,
    request_id: str | None = None,
    model_version: str | None = None,
) -> Call[Prediction]:
    """Ask the model for one answer.

    `unit_id` (a customer, a card) keeps whoever it names with one variant of a rollout. `request_id` is your own name
    for the request; it is made here when left out, so that the two records of one request sent twice are recognised.
    `model_version` pins a version or alias, which needs the scope predict:pin.

    Raises:
        InvalidInput: `extra["reasons"]` names every feature that does not fit.
        Unavailable, Overloaded, DeadlineExceeded: no model server could answer in time.
    """
    body = {"features": dict(features), "request_id": request_id or secrets.token_hex(8)}
    body |= {"unit_id": unit_id} if unit_id is not None else {}
    body |= {"model_version": model_version} if model_version is not None else {}
    return predict_body(model, body)


def predict_body(model: str, body: Mapping[str, object]) -> Call[Prediction]:
    """As `predict`, from a whole body such as `example` returns."""
    return Call("POST", path("ml", model, "predict"), body=dict(body))


def batch(model: str, rows: Sequence[Mapping[str, object]], *, timeout_s: float = 60.0) -> Call[Batch]:
    """Ask the model about many rows at once. All are answered or none; not logged one by one."""
    body = {"rows": [dict(row) for row in rows]}
    return Call("POST", path("ml", model, "batch_predict"), body=body, timeout_s=timeout_s)


def _poured(model: str, source: Path, target: Path, model_version: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"content-type": batches.content_type(source), "accept": batches.content_type(target)}
    headers["content-length"] = str(batches.size(source))
    params = {} if model_version is None else {"model_version": model_version}
    return {"headers": headers, "params": params, "timeout": timeout_s, "path": path("ml", model, "batch_predict")}


def explain(model: str, body: Mapping[str, object]) -> Call[Explained]:
    """Why the model answers as it does: each feature's contribution."""
    return Call("POST", path("ml", model, "explain"), body=dict(body), timeout_s=30.0)


def example(model: str) -> Call[dict[str, Any]]:
    """A valid body for `predict_body`."""
    return read(path("ml", model, "example"))


def outcome(
    model: str,
    value: float | bool | str,
    *,
    prediction_id: UUID | str | None = None,
    unit_id: str | None = None,
    name: str = "label",
    currency: str | None = None,
    observed_at: datetime | None = None,
) -> Call[Taken]:
    """Report what really happened to one prediction, or to one customer.

    `name` is "label" for the truth of the target, else a business metric. A correction is a further outcome: the
    latest `observed_at` (aware; None: now) wins.
    """
    given = {"prediction_id": prediction_id, "unit_id": unit_id, "currency": currency}
    report = {"name": name, "value": value, "observed_at": (observed_at or datetime.now(UTC)).isoformat()}
    return outcomes(model, [report | {field: str(it) for field, it in given.items() if it is not None}])


def outcomes(model: str, reports: Sequence[Mapping[str, object]]) -> Call[Taken]:
    """Report many at once (10,000 at most), each with the members of `outcome`. Sent twice, they are stored once."""
    body = [{"outcome_id": _uuid7(), **report} for report in reports]
    return Call("POST", path("ml", model, "outcomes"), body=body, timeout_s=30.0)


class PredictionClient(SyncTransport):
    """The data plane, for a product service. Thread-safe; make one and keep it.

    Left out, `url` and `key` come from MLCP_ROUTER_URL and MLCP_PREDICT_KEY, else from `home` (MLCP_HOME).
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        home: str | Path | None = None,
        timeout_s: float = 2.0,
        patience: Patience = QUICK,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        base, secret = _where(url, key, home)
        super().__init__(base, secret, timeout_s=timeout_s, patience=patience, transport=transport)

    def batch_predict(
        self,
        model: str,
        source: str | Path,
        target: str | Path,
        *,
        model_version: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        """Ask the model about every row of a file and write the answers, in order, to another.

        Formats go by suffix: .ndjson, .csv, .arrow, .parquet both ways, .json (`{"rows": [...]}`) in. Any number of
        rows, in constant memory. A row that does not fit has its reasons in `error` instead of an answer; columns of
        a table that are no features are passed over. `target` appears when it is complete. Not logged row by row.

        Raises:
            InvalidInput: a file cannot be used, or lacks a feature's column.
            Unavailable: the answer broke off.
        """
        there = Path(target)
        options = _poured(model, Path(source), there, model_version, timeout_s)
        with batches.whole(there) as file:
            self.pour(options.pop("path"), batches.pieces(Path(source)), file.write, **options)

    predict = method(predict)
    predict_body = method(predict_body)
    batch = method(batch)
    explain = method(explain)
    example = method(example)
    outcome = method(outcome)
    outcomes = method(outcomes)


class AsyncPredictionClient(AsyncTransport):
    """`PredictionClient` for asyncio."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        home: str | Path | None = None,
        timeout_s: float = 2.0,
        patience: Patience = QUICK,
        transport: httpx.AsyncBaseTransport | None = None,
        connections: int = 100,
    ) -> None:
        base, secret = _where(url, key, home)
        super().__init__(
            base, secret, timeout_s=timeout_s, patience=patience, transport=transport, connections=connections
        )

    async def batch_predict(
        self,
        model: str,
        source: str | Path,
        target: str | Path,
        *,
        model_version: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        """As `PredictionClient.batch_predict`."""
        there = Path(target)
        options = _poured(model, Path(source), there, model_version, timeout_s)
        with batches.whole(there) as file:
            await self.pour(options.pop("path"), batches.pieces(Path(source)), file.write, **options)

    predict = coroutine(predict)
    predict_body = coroutine(predict_body)
    batch = coroutine(batch)
    explain = coroutine(explain)
    example = coroutine(example)
    outcome = coroutine(outcome)
    outcomes = coroutine(outcomes)


def _where(url: str | None, key: str | None, home: str | Path | None) -> tuple[str, str]:
    folder = config.home(home)
    secret = config.key(key, variable="MLCP_PREDICT_KEY", folder=folder, name="predictor")
    return config.router_url(url, folder=folder), secret


def _uuid7() -> str:
    """An id that carries its time of birth: what is sent twice under it is stored once."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(UUID(int=bits))
