"""Prediction record v1 and outcome: what the data plane writes and everyone else reads.

One record is one JSON object. The router builds the bytes itself (features and output are passed through as they
came); this type is what the ingester parses and what tests hold the router's bytes against.
"""

from typing import Literal

import msgspec

RECORD_VERSION = 1
Status = Literal["ok", "invalid", "error", "timeout", "shed"]
#   ok       answered by `served_variant`
#   invalid  the body was refused (4xx); served_* is who refused it
#   error    no target could answer (5xx)         timeout  no answer within the deadline
#   shed     refused before any target was asked


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    v: int
    prediction_id: str  # UUIDv7; its time decides the day partition
    model: str
    status: Status
    received_at_us: int  # Unix microseconds
    latency_us: int  # inside the router
    epoch: int  # of the snapshot that decided
    revision: int
    assigned_variant: str | None = None  # None: unassigned (no unit) or pinned; never counted in a test
    assigned_version: str | None = None
    served_variant: str | None = None  # None: nobody answered
    served_version: str | None = None
    fallback_reason: str | None = None  # why served differs from assigned: dead | deadline | open | error | 4xx
    pinned: bool = False
    shadow: bool = False  # a copy; its answer went to nobody. Its id is that of its request with the last bit flipped
    rollout_id: str | None = None
    step: int | None = None
    unit_id: str | None = None
    request_id: str | None = None
    features: msgspec.Raw = msgspec.Raw(b"null")
    output: msgspec.Raw = msgspec.Raw(b"null")
    threshold: float | None = None  # decision threshold in force
    decision: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What really happened. Exactly one of prediction_id and unit_id. The latest observed_at wins, history stays."""

    outcome_id: str  # UUIDv7; sending it twice changes nothing
    model: str
    name: str  # "label" for the truth of the target, else a business metric of model.yaml
    value: float | bool | str
    observed_at_us: int
    prediction_id: str | None = None
    unit_id: str | None = None
    currency: str | None = None
