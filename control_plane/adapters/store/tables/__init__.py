"""SQLAlchemy tables. Columns and constraints only; decisions live in domain/.

Desired state is written by services, observed state by the reconciler; a column says which it is where it is not
obvious. `predictions` and `outcomes` hold personal data; no other table does, but for `erasures` until each is done.
"""

from control_plane.adapters.store.tables.analysis import AnalysisRunRow, ArmStatisticRow, RolloutLookRow
from control_plane.adapters.store.tables.base import Base
from control_plane.adapters.store.tables.drift import (
    DriftBlockRow,
    DriftDayRow,
    DriftIncidentRow,
    DriftLookRow,
    DriftProfileRow,
    DriftReferenceRow,
)
from control_plane.adapters.store.tables.governance import ApprovalRow, ApprovalVoteRow, PageSessionRow
from control_plane.adapters.store.tables.installation import (
    AuditRow,
    CheckpointRow,
    IdempotencyRow,
    InstallationRow,
    JobRow,
    KeyRow,
    LeaseRow,
    PrincipalRow,
    SecretRow,
)
from control_plane.adapters.store.tables.log import (
    BusinessRow,
    ErasureRow,
    IngestWatermarkRow,
    LogHourRow,
    OutcomeRow,
    PredictionRow,
    QualityRow,
    WindowRow,
)
from control_plane.adapters.store.tables.notices import DeliveryRow, NoticeRow
from control_plane.adapters.store.tables.policies import (
    HaltRow,
    PolicyActRow,
    PolicyRow,
    SignalRow,
    WebhookDeliveryRow,
)
from control_plane.adapters.store.tables.registry import AliasRow, ModelRow, ModelVersionRow, StageEventRow
from control_plane.adapters.store.tables.releases import DeploymentRow, ExposureRow, RolloutRow, RouterRow, SnapshotRow
from control_plane.adapters.store.tables.replays import ReplayRow
from control_plane.adapters.store.tables.reports import ReportRow

__all__ = [
    "AliasRow",
    "AnalysisRunRow",
    "ApprovalRow",
    "ApprovalVoteRow",
    "ArmStatisticRow",
    "AuditRow",
    "Base",
    "BusinessRow",
    "CheckpointRow",
    "DeliveryRow",
    "DeploymentRow",
    "DriftBlockRow",
    "DriftDayRow",
    "DriftIncidentRow",
    "DriftLookRow",
    "DriftProfileRow",
    "DriftReferenceRow",
    "ErasureRow",
    "ExposureRow",
    "HaltRow",
    "IdempotencyRow",
    "IngestWatermarkRow",
    "InstallationRow",
    "JobRow",
    "KeyRow",
    "LeaseRow",
    "LogHourRow",
    "ModelRow",
    "ModelVersionRow",
    "NoticeRow",
    "OutcomeRow",
    "PageSessionRow",
    "PolicyActRow",
    "PolicyRow",
    "PredictionRow",
    "PrincipalRow",
    "QualityRow",
    "ReplayRow",
    "ReportRow",
    "RolloutLookRow",
    "RolloutRow",
    "RouterRow",
    "SecretRow",
    "SignalRow",
    "SnapshotRow",
    "StageEventRow",
    "WebhookDeliveryRow",
    "WindowRow",
]
