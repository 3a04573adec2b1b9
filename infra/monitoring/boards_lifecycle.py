"""Dashboards of what versions go through: training, deployments."""

from typing import Final

from infra.monitoring.grafana import Dashboard, Panel, Query, Row

_MINE: Final = '{model_name=~"$model"}'
_DAYS: Final = "mlflow_model_training_duration_seconds"

TRAINING: Final = Dashboard(
    "mlcp-training",
    "mlcp / Training pipeline",
    "Trainings and other jobs: how long, how many, what was refused.",
    (
        Row(
            "Trainings",
            (
                Panel(
                    "Trainings so far",
                    [Query(f"sum by (model_type) ({_DAYS}_count)", "{{model_type}}")],
                    "short",
                    8,
                    "Counted on this host since its metrics began.",
                    "stat",
                ),
                Panel(
                    "Mean duration",
                    [
                        Query(
                            f"sum by (model_type) ({_DAYS}_sum) / sum by (model_type) ({_DAYS}_count)",
                            "{{model_type}}",
                        )
                    ],
                    "s",
                    8,
                    "From validated rows to a judged version.",
                    "stat",
                ),
                Panel(
                    "Refused for their data",
                    [Query(f"sum by (model_name) (model_training_data_refused_total{_MINE})")],
                    "short",
                    8,
                    "The report under MLCP_HOME/reports/training names column, rows and examples.",
                    "stat",
                    limits=(1,),
                ),
                Panel(
                    "Duration by kind of model",
                    [
                        Query(f"histogram_quantile({q}, sum by (le, model_type) ({_DAYS}_bucket))", legend)
                        for q, legend in ((0.5, "{{model_type}} p50"), (0.95, "{{model_type}} p95"))
                    ],
                    "s",
                    12,
                ),
                Panel(
                    "Version in Production",
                    [Query(f"model_production_info{_MINE} == 1", "{{model_name}} {{version}}")],
                    "none",
                    12,
                    kind="table",
                ),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel(
                    "Jobs on record",
                    [Query("sum by (kind, state) (mlcp_jobs)", "{{kind}} {{state}}")],
                    "short",
                    8,
                    stacked=True,
                ),
                Panel(
                    "Ended badly, last day",
                    [
                        Query(
                            'sum by (kind) (delta(mlcp_jobs{state="failed"}[1d])) or 0 * sum by (kind) (mlcp_jobs)',
                            "{{kind}}",
                        )
                    ],
                    "short",
                    8,
                    limits=(1,),
                    kind="bargauge",
                ),
                Panel(
                    "Oldest not begun",
                    [Query("max by (kind) (mlcp_job_waiting_seconds)", "{{kind}}")],
                    "s",
                    8,
                    limits=(600, 1800),
                ),
            ),
        ),
    ),
)

DEPLOYMENTS: Final = Dashboard(
    "mlcp-deployments",
    "mlcp / Deployments",
    "What is in Production, how releases ended, and whether the servers are there.",
    (
        Row(
            "Now",
            (
                Panel("Active models", [Query("sum(mlflow_active_models)", "models")], "short", 6, kind="stat"),
                Panel(
                    "Releases that succeeded",
                    [
                        Query(
                            'sum by (model_name) (mlflow_model_deployments_total{status="succeeded",stage="Production",'
                            f"{_MINE[1:]}) / sum by (model_name) "
                            f'(mlflow_model_deployments_total{{stage="Production",{_MINE[1:]})'
                        )
                    ],
                    "percentunit",
                    12,
                    "Of those that have ended.",
                    "stat",
                    least=None,
                ),
                Panel(
                    "Routers alive",
                    [
                        Query('sum(mlcp_routers{state="live"})', "workers"),
                        Query('sum(mlcp_routers{state="behind"})', "behind"),
                    ],
                    "short",
                    6,
                    kind="stat",
                ),
            ),
        ),
        Row(
            "Releases",
            (
                Panel(
                    "Releases by stage and how they ended",
                    [
                        Query(
                            f"sum by (model_name, stage, status) (mlflow_model_deployments_total{_MINE})",
                            "{{model_name}} {{stage}} {{status}}",
                        )
                    ],
                    "short",
                    12,
                ),
                Panel(
                    "Versions in Production",
                    [Query(f"model_production_info{_MINE}", "{{model_name}} {{version}}")],
                    "none",
                    12,
                    kind="state-timeline",
                    words=((0, "-", "transparent"), (1, "Production", "green")),
                ),
                Panel(
                    "Model servers by state",
                    [Query(f"sum by (model_name, state) (model_servers{_MINE})", "{{model_name}} {{state}}")],
                    "short",
                    12,
                    stacked=True,
                ),
                Panel(
                    "Until the next review",
                    [Query(f"model_review_due_timestamp_seconds{_MINE} - time()")],
                    "s",
                    12,
                    "By the materiality of model.yaml, from when the version was made.",
                    "bargauge",
                    least=None,
                ),
            ),
        ),
    ),
)
