"""Wire models of POST /outcomes: what really happened to a prediction or a customer."""

from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from control_plane.contracts.base import ModelName, Moment, Request, Text, View
from control_plane.contracts.outcome_rules import UNIT_LIMIT


class OutcomeSpec(Request):
    """Exactly one of prediction_id and unit_id. A correction is a further outcome: the latest observed_at wins.

    `model` may be left out with a prediction_id that is already in the log. `outcome_id` (UUIDv7) makes sending twice
    harmless.
    """

    model: ModelName | None = None
    prediction_id: UUID | None = None
    unit_id: Annotated[Text, Field(min_length=1)] | None = None
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")] = "label"
    value: bool | float | Annotated[Text, Field(max_length=1_000)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    observed_at: Moment | None = None  # None: now
    outcome_id: UUID | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> "OutcomeSpec":
        if (self.prediction_id is None) == (self.unit_id is None):
            raise ValueError("give exactly one of prediction_id and unit_id")
        if self.unit_id is not None and len(self.unit_id.encode()) > UNIT_LIMIT:
            raise ValueError(f"unit_id is longer than {UNIT_LIMIT} bytes")
        if self.unit_id is not None and self.model is None:
            raise ValueError("unit_id needs a model")
        return self


class OutcomesAccepted(View):
    """`accepted` are stored for good; `known` were before, under the same outcome_id, or are of a forgotten unit."""

    accepted: int
    known: int
