"""Wire models of /models/{m}/replay and /models/{m}/replays."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field

from control_plane.contracts.base import Reason, Request, Text, Version, View
from control_plane.contracts.jobs import JobState
from control_plane.domain.replay.report import Report

Since = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}[mhdw]$", examples=["30d"])]


class ReplaySpec(Request):
    """What a candidate is replayed over. `since`: a time, or how long before `until`; `baseline`: Production where
    left out; `sample`: share of the customers. `anew`: also where the same question has been answered."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"candidate": "4", "since": "30d"}]})

    candidate: Version
    baseline: Version | None = None
    since: AwareDatetime | Since = "7d"
    until: AwareDatetime | None = None
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    segment: Annotated[Text, Field(min_length=1, max_length=128)] | None = None
    anew: bool = False
    reason: Reason | None = None


class ReplayView(View):
    """A replay. `gate`: what stands against a promotion by the gate of the candidate's model.yaml; null: it has none.
    `report` is left out of lists."""

    id: UUID  # of its job, too
    model: str
    candidate_version: str
    baseline_version: str
    since: datetime
    until: datetime
    sample: float
    segment: str | None
    state: JobState
    fraction: float | None  # of the rows, while it runs
    error: str | None
    created_at: datetime
    created_by: str
    done_at: datetime | None
    summary: list[str]
    gate: list[str] | None
    report: Report | None = None
