"""Dashboards of models: performance, rollouts, drift."""

from typing import Final

from infra.monitoring.grafana import Dashboard, Panel, Query, Row, rate

_ASKED: Final = 'model_predictions_total{model_name=~"$model"}'
_MINE: Final = '{model_name=~"$model"}'


def _quantile(q: float, metric: str, by: str = "model_name") -> str:
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{_MINE}[$__rate_interval])))"


PERFORMANCE: Final = Dashboard(
    "mlcp-performance",
    "mlcp / Model performance",
    "What customers get from each model: answers, speed, error budgets, quality, business figures.",
    (
        Row(
            "Now",
            (
                Panel("Predictions a second", [Query(rate("model_name", _ASKED))], "reqps", 6, kind="stat"),
                Panel(
                    "Availability, 30 days",
                    [Query(f"model_availability{_MINE}")],
                    "percentunit",
                    6,
                    "Answered of asked, from the log.",
                    "stat",
                    least=None,
                ),
                Panel(
                    "p95",
                    [Query(_quantile(0.95, "model_prediction_latency_seconds"))],
                    "s",
                    6,
                    "From the complete request to the answer, inside the router.",
                    "stat",
                ),
                Panel(
                    "Labelled predictions",
                    [Query(f"model:labelled:production{_MINE}")],
                    "short",
                    6,
                    "Of the version in Production, in the newest span whose labels had their time.",
                    "stat",
                ),
            ),
        ),
        Row(
            "Answers",
            (
                Panel(
                    "Predictions by how they ended",
                    [Query(rate("model_name, status", _ASKED), "{{model_name}} {{status}}")],
                    "reqps",
                    12,
                    stacked=True,
                ),
                Panel(
                    "Predictions by version",
                    [Query(rate("model_name, version, variant", _ASKED), "{{model_name}} {{version}} {{variant}}")],
                    "reqps",
                    12,
                    stacked=True,
                ),
                Panel(
                    "Latency in the router",
                    [
                        Query(_quantile(q, "model_prediction_latency_seconds"), f"{{{{model_name}}}} p{q * 100:g}")
                        for q in (0.5, 0.95, 0.99)
                    ],
                    "s",
                    12,
                ),
                Panel(
                    "Latency of the model alone, p95",
                    [
                        Query(
                            _quantile(0.95, "model_inference_latency_seconds", "model_name, version"),
                            "{{model_name}} {{version}}",
                        )
                    ],
                    "s",
                    12,
                    "Inside the model server; the difference to the router's is queueing.",
                ),
            ),
        ),
        Row(
            "Error budgets",
            tuple(
                Panel(
                    f"{title}: speed of burning",
                    [
                        Query(f"model:{name}:ratio_rate{window}{_MINE} / model:{name}_budget:ratio{_MINE}", legend)
                        for window, legend in (("1h", "{{model_name}} 1 h"), ("6h", "{{model_name}} 6 h"))
                    ],
                    "none",
                    8,
                    "1 uses up the budget of 30 days in 30 days; 14.4 for an hour pages.",
                    limits=(1, 14.4),
                )
                for name, title in (("unavailable", "Availability"), ("errors", "Errors"), ("slow", "Latency"))
            ),
        ),
        Row(
            "Quality and value",
            (
                Panel(
                    "The declared metric and its minimum",
                    [
                        Query(
                            f"model:quality:production{_MINE} and on (model_name, metric)"
                            ' {__name__=~"model:quality_(floor|ceiling):declared"}',
                            "{{model_name}} {{metric}}",
                        ),
                        Query(
                            f'{{__name__=~"model:quality_(floor|ceiling):declared",{_MINE[1:]}',
                            "{{model_name}} {{metric}} limit",
                        ),
                    ],
                    "none",
                    8,
                    "Of the version in Production, on predictions whose labels had their time.",
                    least=None,
                ),
                Panel(
                    "Accuracy",
                    [Query(f"model_accuracy{_MINE}", "{{model_name}} {{period}}")],
                    "percentunit",
                    8,
                    least=None,
                ),
                Panel(
                    "Every metric, by version",
                    [Query(f'model_quality{{period="ripe",{_MINE[1:]}', "{{model_name}} {{version}} {{metric}}")],
                    "none",
                    8,
                    least=None,
                ),
                Panel(
                    "Business figures, 24 hours",
                    [Query(f"model_business_value{_MINE}", "{{model_name}} {{metric}} {{unit}}")],
                    "short",
                    12,
                    kind="bargauge",
                    least=None,
                ),
                Panel(
                    "Inputs outside what was declared",
                    [
                        Query(
                            rate("model_name, feature, kind", f"model_input_warnings_total{_MINE}"),
                            "{{model_name}} {{feature}} {{kind}}",
                        )
                    ],
                    "reqps",
                    12,
                    "Served all the same.",
                ),
            ),
        ),
    ),
)

ROLLOUTS: Final = Dashboard(
    "mlcp-rollouts",
    "mlcp / Rollouts and A/B tests",
    "Where releases are, what their comparisons say, and whether the arms are as large as they should be.",
    (
        Row(
            "Where they are",
            (
                Panel(
                    "Phase",
                    [Query(f"model_rollout_phase_seconds{_MINE} > bool 0", "{{model_name}} {{phase}}")],
                    "none",
                    12,
                    "Of the open rollout of each model.",
                    "state-timeline",
                    words=((0, "-", "transparent"), (1, "in it", "blue")),
                ),
                Panel(
                    "Traffic of the candidate",
                    [Query(f"model_rollout_candidate_weight_ratio{_MINE}")],
                    "percentunit",
                    12,
                    "What the plan gives it now.",
                    most=1,
                ),
                Panel(
                    "Longer than planned",
                    [Query(f"model_rollout_overdue_seconds{_MINE}")],
                    "s",
                    8,
                    limits=(600, 3600),
                ),
                Panel(
                    "Verdict of the last look",
                    [Query(f"model_rollout_verdict{_MINE}")],
                    "none",
                    8,
                    kind="state-timeline",
                    words=((-1, "fail", "red"), (0, "inconclusive", "yellow"), (1, "pass", "green")),
                    least=-1,
                ),
                Panel(
                    "Sample ratio mismatch",
                    [Query(f"model_rollout_srm{_MINE}")],
                    "none",
                    8,
                    "The arms' sizes contradict their weights: the comparison is void.",
                    "state-timeline",
                    words=((0, "as planned", "green"), (1, "mismatch", "red")),
                ),
            ),
        ),
        Row(
            "The comparison",
            (
                Panel(
                    "Candidate minus baseline, with its interval",
                    [Query(f"model_rollout_effect{_MINE}", "{{model_name}} {{metric}} {{bound}}")],
                    "none",
                    16,
                    "Always valid: it may be looked at as often as one likes. Between low and high is the truth.",
                    least=None,
                ),
                Panel(
                    "Customers it stands on",
                    [Query(f"model_rollout_units{_MINE}", "{{model_name}} {{variant}}")],
                    "short",
                    8,
                    "Closed: their observation is over.",
                ),
            ),
        ),
        Row(
            "The arms",
            (
                Panel(
                    "Predictions by variant",
                    [Query(rate("model_name, variant", _ASKED), "{{model_name}} {{variant}}")],
                    "reqps",
                    8,
                    stacked=True,
                ),
                Panel(
                    "Without an answer, by variant",
                    [
                        Query(
                            'sum by (model_name, variant) (rate(model_predictions_total{status!~"ok|invalid",'
                            f"{_MINE[1:]}[$__rate_interval])) or 0 * " + rate("model_name, variant", _ASKED),
                            "{{model_name}} {{variant}}",
                        )
                    ],
                    "reqps",
                    8,
                ),
                Panel(
                    "Answered by stable instead",
                    [Query(rate("model_name, reason", f"model_fallbacks_total{_MINE}"), "{{model_name}} {{reason}}")],
                    "reqps",
                    8,
                ),
            ),
        ),
    ),
)

DRIFT: Final = Dashboard(
    "mlcp-drift",
    "mlcp / Drift",
    "How far customers are from those the model was made with, and whether that is evidence.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Incident",
                    [Query(f"model_drift_alarm{_MINE}")],
                    "none",
                    12,
                    "Opened and closed by the evidence of whole days.",
                    "state-timeline",
                    words=((0, "none", "green"), (1, "open", "red")),
                ),
                Panel(
                    "Largest score now",
                    [Query(f'max by (model_name) (model_drift_score{{drift_type!="performance",{_MINE[1:]})')],
                    "none",
                    12,
                    kind="bargauge",
                ),
            ),
        ),
        Row(
            "Course",
            (
                Panel(
                    "Data, predictions, target (PSI)",
                    [
                        Query(
                            f'model_drift_score{{drift_type=~"data|prediction|target",{_MINE[1:]}',
                            "{{model_name}} {{drift_type}}",
                        ),
                        Query(f"model:psi:threshold{_MINE}", "{{model_name}} threshold"),
                    ],
                    "none",
                    12,
                    "Largest PSI of any feature; threshold from model.yaml, 0.1 without one.",
                ),
                Panel(
                    "Drop of the metric",
                    [
                        Query(f'model_drift_score{{drift_type="performance",{_MINE[1:]}', "{{model_name}}"),
                        Query(f"model:performance_drop:threshold{_MINE}", "{{model_name}} threshold"),
                    ],
                    "none",
                    12,
                    "Realised where labels are known, else estimated without them.",
                    least=None,
                ),
                Panel(
                    "Bad rows",
                    [Query(f'model_drift_score{{drift_type="quality",{_MINE[1:]}')],
                    "percentunit",
                    12,
                    "Missing, unseen or impossible values.",
                ),
                Panel(
                    "Predictions the scores stand on",
                    [Query(rate("model_name", _ASKED))],
                    "reqps",
                    12,
                ),
            ),
        ),
    ),
)
