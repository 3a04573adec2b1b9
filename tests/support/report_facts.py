# ruff: noqa: E501
"""A report that has everything a report can have."""

from datetime import UTC, datetime, timedelta
from math import sin

from control_plane.domain import reviews
from control_plane.domain.reports import facts
from control_plane.domain.reports.facts import Facts, Kind

AT = datetime(2026, 3, 31, 12, 30, tzinfo=UTC)


def everything(kind: Kind = Kind.DEPLOYMENT) -> Facts:
    validated = AT - timedelta(days=3)
    return Facts(
        kind=kind,
        id="0195eac0-7c00-7000-8000-000000000001",
        title="Deployment report: churn 12",
        at=AT,
        since=AT - timedelta(days=4),
        until=AT,
        inventory=facts.Inventory(
            model="churn",
            problem="binary",
            owner="retention team",
            purpose="Who will leave within 90 days, so that an offer reaches them in time.",
            materiality="high",
            production_version="12",
            previous_version="11",
            validated_at=validated,
            next_review=reviews.due("high", validated),
            review_overdue=False,
            undeclared=(),
        ),
        lineage=facts.Lineage(
            "12", "2.3.0", validated, "8f14e45fceea167a5a36dedd4bea2543", "sha256:" + "ab" * 32, "registration", "xgboost",
            7, "warehouse.churn_2026_03", "cd" * 32, 48_211, "2025-01-01", "2026-03-01",
        ),
        scores=(
            facts.Score("roc_auc", 0.8449, 0.8301, 0.8588, 0.8277, "11"),
            facts.Score("cost on the hold-out (EUR)", 18_240.0),
            facts.Score("precision", 0.6121),
            facts.Score("recall", 0.7034),
        ),
        gate=facts.Gate(True, ()),
        importances=(("tenure_months", 0.412), ("monthly_charges", 0.339), ("support_calls_90d", 0.121), ("plan", 0.04)),
        release=facts.Release(
            "0195eac0-7c00-7000-8000-00000000000a", "promotion", "canary", "succeeded", "12", "11", "ann", AT - timedelta(days=4),
            AT - timedelta(hours=2), "better", "The goal is reached: retained is better by 0.021.",
            looks=tuple(
                facts.Look(AT - timedelta(hours=40 - 8 * n), n + 1, verdict, "step", why)
                for n, (verdict, why) in enumerate(
                    [("inconclusive", "412 of 1,000 customers have closed."), ("pass", "No guardrail is violated."),
                     ("pass", "The goal is reached.")]
                )
            ),
            measured=(
                facts.Measured("retained", "goal", "pass", "Better by at least 0.004.", 0.021, 0.004, 0.038),
                facts.Measured("latency_ms", "guardrail", "pass", "Within 5 ms.", 0.4, -0.9, 1.7),
            ),
        ),
        service=facts.Service(
            AT - timedelta(days=4), AT, 1_284_332, 0.99987, 0.999, True, 50.0,
            (facts.Served("11", 820_110, 3, 8.12, 120_400, 0.8412), facts.Served("12", 464_222, 1, 8.4, 20_110, 0.8467)),
        ),
        drift=facts.Drift(
            "12", AT - timedelta(minutes=1), False,
            (
                facts.DriftRead("data", "none", False, 0.041, "The largest PSI is 0.041 (plan), the limit 0.1."),
                facts.DriftRead("performance", "inconclusive", False, None, "Labels are not old enough."),
            ),
            (facts.DriftFeatureRead("plan", "pass", 0.041, 0.1), facts.DriftFeatureRead("tenure_months", "pass", 0.017, 0.1)),
            tuple(facts.DriftPointRead(AT - timedelta(hours=80 - n), round(0.03 + 0.02 * sin(n / 9), 3)) for n in range(80)),
            (facts.DriftIncidentRead("0195", "11", "warning", AT - timedelta(days=3), AT - timedelta(days=2), ("data",), ("plan",)),),
        ),
        timeline=(
            facts.Happened(AT - timedelta(days=4), "rollout.begin", "ann", "better on the hold-out", 120),
            facts.Happened(AT - timedelta(hours=2), "rollout.succeeded", "reconciler", "The goal is reached.", 131),
        ),
        approvals=(facts.Approval(AT - timedelta(days=4), "rollout.begin", "ann", "bob", "evidence read", 121),),
        limits=("Judged on one hold-out.", "Importances say what the model uses, not what causes an outcome."),
        proof=facts.Proof(140, 138),
    )  # fmt: skip
