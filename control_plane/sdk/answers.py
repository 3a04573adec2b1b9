"""The types of the control plane's answers, in one place to import them from.

Each is imported when it is first used, and only then: building pydantic's models takes longer than many a request, and
a rollback should be on its way before that.
"""

from typing import TYPE_CHECKING

from control_plane.sdk import lazy

if TYPE_CHECKING:
    from control_plane.contracts.approvals import ApprovalView
    from control_plane.contracts.audit import AuditVerification, AuditView
    from control_plane.contracts.base import Page
    from control_plane.contracts.drift import DriftView
    from control_plane.contracts.health import HealthView
    from control_plane.contracts.jobs import JobLogs, JobView
    from control_plane.contracts.keys import KeyCreated, KeyView, PrincipalView
    from control_plane.contracts.models import (
        ImportancesView,
        ModelView,
        PerformanceView,
        PredictionView,
        TimelineView,
        TrafficView,
        VersionDetail,
        VersionView,
    )
    from control_plane.contracts.notices import DeliveryView, NoticeTold
    from control_plane.contracts.outcomes import OutcomesAccepted, OutcomeSpec
    from control_plane.contracts.policies import DecisionView, HaltView, PolicyPlanView, PolicyView
    from control_plane.contracts.replays import ReplayView
    from control_plane.contracts.reports import ReportView
    from control_plane.contracts.rollouts import (
        AbTestView,
        AnalysisView,
        ExperimentView,
        PlanView,
        RolloutView,
        StageChangeView,
    )

__all__ = [
    "AbTestView",
    "AnalysisView",
    "ApprovalView",
    "AuditVerification",
    "AuditView",
    "DecisionView",
    "DeliveryView",
    "DriftView",
    "ExperimentView",
    "HaltView",
    "HealthView",
    "ImportancesView",
    "JobLogs",
    "JobView",
    "KeyCreated",
    "KeyView",
    "ModelView",
    "NoticeTold",
    "OutcomeSpec",
    "OutcomesAccepted",
    "Page",
    "PerformanceView",
    "PlanView",
    "PolicyPlanView",
    "PolicyView",
    "PredictionView",
    "PrincipalView",
    "ReplayView",
    "ReportView",
    "RolloutView",
    "StageChangeView",
    "TimelineView",
    "TrafficView",
    "VersionDetail",
    "VersionView",
]

_MODULES = {
    "approvals": ("ApprovalView",),
    "audit": ("AuditVerification", "AuditView"),
    "base": ("Page",),
    "drift": ("DriftView",),
    "health": ("HealthView",),
    "jobs": ("JobLogs", "JobView"),
    "keys": ("KeyCreated", "KeyView", "PrincipalView"),
    "models": (
        "ImportancesView",
        "ModelView",
        "PerformanceView",
        "PredictionView",
        "TimelineView",
        "TrafficView",
        "VersionDetail",
        "VersionView",
    ),
    "notices": ("DeliveryView", "NoticeTold"),
    "outcomes": ("OutcomesAccepted", "OutcomeSpec"),
    "policies": ("DecisionView", "HaltView", "PolicyPlanView", "PolicyView"),
    "replays": ("ReplayView",),
    "reports": ("ReportView",),
    "rollouts": ("AbTestView", "AnalysisView", "ExperimentView", "PlanView", "RolloutView", "StageChangeView"),
}

__getattr__ = lazy.names(__name__, "control_plane.contracts", _MODULES)
