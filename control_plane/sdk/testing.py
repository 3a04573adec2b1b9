"""A test double of the prediction clients: answers what it was told to, keeps what it was asked.

    fake = FakePredictions()
    fake.answers("fraud", output={"probability": 0.97}, decision="block")
    assert checkout(fake, order) == "blocked"
    assert fake.predicted[0].features["amount"] == 120.5

No network, no server, no keys: unit tests of a product service need nothing of the control plane.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from pydantic import JsonValue

from control_plane.errors import ControlPlaneError, NotFound
from control_plane.sdk.predictions import Prediction, Taken


@dataclass(frozen=True, slots=True)
class Predicted:
    """One call of `predict`."""

    model: str
    features: dict[str, object]
    unit_id: str | None
    request_id: str | None
    prediction_id: str | None  # of the answer; None: it was told to fail


@dataclass(frozen=True, slots=True)
class Reported:
    """One call of `outcome`."""

    model: str
    value: float | bool | str
    prediction_id: str | None
    unit_id: str | None
    name: str
    currency: str | None
    observed_at: datetime | None


@dataclass(slots=True)
class FakePredictions:
    """Takes the place of a `PredictionClient`. A model nobody declared an answer for is not found, as in production."""

    predicted: list[Predicted] = field(default_factory=list[Predicted])
    reported: list[Reported] = field(default_factory=list[Reported])
    _declared: dict[str, list[Prediction | ControlPlaneError]] = field(
        default_factory=dict[str, list[Prediction | ControlPlaneError]]
    )

    def answers(
        self,
        model: str,
        *,
        output: JsonValue,
        decision: str | None = None,
        threshold: float | None = None,
        model_version: str = "1",
        variant: str | None = "stable",
    ) -> None:
        """Declare the model's next answer. Declared several times: one after the other; the last one stays."""
        answer = Prediction(
            prediction_id="",
            model=model,
            model_version=model_version,
            variant=variant,
            output=output,
            decision=decision,
            threshold=threshold,
        )
        self._declared.setdefault(model, []).append(answer)

    def fails(self, model: str, error: ControlPlaneError) -> None:
        """Declare that the model's next call raises `error`, such as `Unavailable("...")`."""
        self._declared.setdefault(model, []).append(error)

    def predict(
        self, model: str, features: Mapping[str, object], *, unit_id: str | None = None, request_id: str | None = None
    ) -> Prediction:
        declared = self._declared.get(model)
        if not declared:
            raise NotFound(f"There is no model {model}: declare its answer with answers().")
        answer = declared.pop(0) if len(declared) > 1 else declared[0]
        failed = isinstance(answer, ControlPlaneError)
        prediction_id = None if failed else str(uuid4())
        self.predicted.append(Predicted(model, dict(features), unit_id, request_id, prediction_id))
        if isinstance(answer, ControlPlaneError):
            raise answer
        return answer.model_copy(update={"prediction_id": prediction_id})

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
    ) -> Taken:
        named = None if prediction_id is None else str(prediction_id)
        self.reported.append(Reported(model, value, named, unit_id, name, currency, observed_at))
        return Taken(accepted=1)


class AsyncFakePredictions:
    """`FakePredictions` for asyncio; `fake` is where answers are declared and calls are kept."""

    def __init__(self, fake: FakePredictions | None = None) -> None:
        self.fake = fake or FakePredictions()

    async def predict(
        self, model: str, features: Mapping[str, object], *, unit_id: str | None = None, request_id: str | None = None
    ) -> Prediction:
        return self.fake.predict(model, features, unit_id=unit_id, request_id=request_id)

    async def outcome(
        self,
        model: str,
        value: float | bool | str,
        *,
        prediction_id: UUID | str | None = None,
        unit_id: str | None = None,
        name: str = "label",
        currency: str | None = None,
        observed_at: datetime | None = None,
    ) -> Taken:
        return self.fake.outcome(
            model,
            value,
            prediction_id=prediction_id,
            unit_id=unit_id,
            name=name,
            currency=currency,
            observed_at=observed_at,
        )
