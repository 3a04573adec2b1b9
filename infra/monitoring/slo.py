"""Error budgets of every model, as recording rules and burn-rate alerts over several windows.

Source: Google, The Site Reliability Workbook (2018), chapter 5, "Multiwindow, Multi-Burn-Rate Alerts", and its factors.
A factor is how many times faster than allowed the budget of 30 days goes; the short window ends the alert soon after
the trouble. Objectives come from model.yaml by way of `model:objective:declared`, which `mlcp generate` writes.
"""

from dataclasses import dataclass
from typing import Any, Final

WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_BURNS: Final = {  # severity: (factor, long window, short window)
    "critical": ((14.4, "1h", "5m"), (6, "6h", "30m")),
    "warning": ((3, "1d", "2h"), (1, "3d", "6h")),
}
_LEAST: Final = 5  # spoilt predictions in the long window: a single one of a quiet night wakes nobody
_MOST: Final = 0.9  # a share above it burns any budget, however large the objective made it
_CUSTOMERS: Final = 'variant!~"shadow|pinned"'
RUNBOOK: Final = "{{ with $externalLabels.runbook_base }}{{ . }}{{ else }}docs/operations/alerts{{ end }}/"


@dataclass(frozen=True, slots=True)
class Objective:
    """`ratio`: PromQL of the spoilt share with %(window)s in it. `budget`: of it, per model; `fallback` where none."""

    name: str
    alert: str
    ratio: str
    fallback: float
    summary: str
    description: str
    page: str


def _share(spoilt: str, among: str) -> str:
    """0, not nothing, for a model that was asked and never failed."""
    asked = f"sum by (model_name) (rate(model_predictions_total{{{among}}}[%(window)s]))"
    return f"(sum by (model_name) (rate(model_predictions_total{{{spoilt}}}[%(window)s])) or 0 * {asked}) / {asked}"


OBJECTIVES: Final = (
    Objective(
        "unavailable",
        "ModelAvailabilityBudgetBurn",
        _share(f'status=~"error|timeout|shed",{_CUSTOMERS}', _CUSTOMERS),
        0.001,
        "{{ $labels.model_name }} does not answer {{ $value | humanizePercentage }} of what it is asked",
        "Predictions end without an answer (error, timeout or shed) so fast that the budget of slo.availability would "
        "not last.",
        "model-availability-budget-burn.md",
    ),
    Objective(
        "errors",
        "ModelErrorBudgetBurn",
        _share(f'status=~"error|timeout",{_CUSTOMERS}', f'status!="shed",{_CUSTOMERS}'),
        0.01,
        "{{ $value | humanizePercentage }} of the predictions of {{ $labels.model_name }} fail",
        "Predictions that were sent to a model server end in an error or a timeout, faster than slo.error_rate allows.",
        "model-error-budget-burn.md",
    ),
    Objective(
        "slow",
        "ModelLatencyBudgetBurn",
        '1 - sum by (model_name) (rate(model_prediction_latency_seconds_bucket{le="0.05"}[%(window)s]))'
        " / sum by (model_name) (rate(model_prediction_latency_seconds_count[%(window)s]))"
        ' unless on (model_name) model:objective:declared{objective="latency_seconds"}',
        0.05,
        "{{ $value | humanizePercentage }} of the answers of {{ $labels.model_name }} are slower than slo.p95_ms",
        "slo.p95_ms allows 5 % of the answers to take longer. They are more than that, and by so much.",
        "model-latency-budget-burn.md",
    ),
)


def rules() -> dict[str, Any]:
    """The rule file as Prometheus reads it."""
    recorded = [
        {"record": f"model:{objective.name}:ratio_rate{window}", "expr": objective.ratio % {"window": window}}
        for objective in OBJECTIVES
        for window in WINDOWS
    ]
    asked = "sum by (model_name) (increase(model_predictions_total{%s}[%s]))"
    recorded += [
        {"record": f"model:asked:increase{long}", "expr": asked % (_CUSTOMERS, long)}
        for burns in _BURNS.values()
        for _, long, _ in burns
    ]
    for objective in OBJECTIVES:
        declared = f'max by (model_name) (model:objective:declared{{objective="{objective.name}_budget"}})'
        every = f"0 * group by (model_name) (model_predictions_total) + {objective.fallback}"
        recorded.append({"record": f"model:{objective.name}_budget:ratio", "expr": f"{declared} or {every}"})
    alerts = [_alert(objective, severity) for objective in OBJECTIVES for severity in _BURNS]
    return {"groups": [{"name": "slo", "rules": recorded}, {"name": "slo-alerts", "rules": alerts}]}


def _alert(objective: Objective, severity: str) -> dict[str, Any]:
    return {
        "alert": objective.alert,
        "expr": "\nor\n".join(_burn(objective.name, *burn) for burn in _BURNS[severity]) + "\n",
        "labels": {"severity": severity},
        "annotations": {
            "summary": objective.summary,
            "description": objective.description,
            "runbook_url": RUNBOOK + objective.page,
        },
    }


def _burn(name: str, factor: float, long: str, short: str) -> str:
    limit = f"clamp_max({factor:g} * model:{name}_budget:ratio, {_MOST})"
    return (
        f"(\n  model:{name}:ratio_rate{long} > {limit}\n  and model:{name}:ratio_rate{short} > {limit}\n"
        f"  and model:{name}:ratio_rate{long} * model:asked:increase{long} >= {_LEAST}\n)"
    )
