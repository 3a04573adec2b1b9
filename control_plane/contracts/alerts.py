"""What alert senders post: Alertmanager's webhook, version 4."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from control_plane.contracts.base import Moment, Text, View
from control_plane.domain.governance.decide import Signal, Status
from control_plane.domain.governance.policy import Severity, Source

_SEVERITIES = {
    "critical": Severity.CRITICAL,
    "page": Severity.CRITICAL,
    "high": Severity.CRITICAL,
    "error": Severity.CRITICAL,
    "info": Severity.INFO,
    "none": Severity.INFO,
    "low": Severity.INFO,
}
Label = Annotated[Text, StringConstraints(max_length=4_096)]
Labels = Annotated[dict[Label, Label], Field(max_length=100)]


class Alert(View):
    status: Literal["firing", "resolved"]
    labels: Labels
    annotations: Labels = {}
    startsAt: Moment
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]


class Alertmanager(View):
    """A group of alerts. Members we do not use are not looked at."""

    version: Literal["4"]
    alerts: Annotated[list[Alert], Field(max_length=5_000)]


class Accepted(View):
    """How many signals came, and how many of them were new."""

    received: int
    new: int


def key(alert: Alert) -> str:
    """The same alert, of the same start, in the same state is one signal, however often and in whichever group."""
    return f"{alert.fingerprint}:{alert.startsAt.timestamp():.3f}:{alert.status}"


def signal(alert: Alert) -> Signal:
    labels, ours = alert.labels, alert.labels.get("model_name") or alert.labels.get("model")
    source = Source.SLO if "slo" in labels else Source.ALERT
    severity = _SEVERITIES.get(labels.get("severity", "").lower(), Severity.WARNING)
    at: datetime = alert.startsAt
    facts = {"labels": dict(labels), "annotations": dict(alert.annotations), "fingerprint": alert.fingerprint}
    return Signal(source, labels.get("alertname", "alert"), ours, severity, Status(alert.status), at, facts)
