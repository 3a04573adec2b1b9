"""What a product service needs: ask a model, and report later what really happened.

    with PredictionClient() as ml:
        answer = ml.predict("fraud", {"amount": 120.5, ...}, unit_id=customer)
        if answer.decision == "block": ...
        ml.outcome("fraud", True, prediction_id=answer.prediction_id)

Code that takes a `Predictions` is tested with `control_plane.sdk.testing.FakePredictions`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue

from control_plane.contracts.outcomes import OutcomesAccepted
from control_plane.sdk.transport import Patience

# One more try, soon: whoever waits for a prediction would rather have an error than a late answer.
QUICK = Patience(attempts=2, budget_s=2.0, first_wait_s=0.05)


class Prediction(BaseModel):
    """A model's answer. `output` is what its problem says: a probability, a label, a value."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    prediction_id: str  # name it when you report the outcome
    model: str
    model_version: str
    variant: str | None = None  # stable | candidate | baseline; None: pinned, or no unit_id to assign by
    output: JsonValue = None
    decision: str | None = None  # the word model.yaml declares for what to do
    threshold: float | None = None  # the probability from which `decision` says yes
    reasons: list[str] = []  # in words, where the model explains itself
    logged: bool = True  # False: answered, but the record could not be kept

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
    ) -> OutcomesAccepted: ...
