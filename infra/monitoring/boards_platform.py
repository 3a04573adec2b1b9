"""Dashboards of the installation: data plane, platform."""

from typing import Final

from infra.monitoring.grafana import Dashboard, Panel, Query, Row, rate

_MINE: Final = '{model_name=~"$model"}'

DATA_PLANE: Final = Dashboard(
    "mlcp-data-plane",
    "mlcp / Data plane",
    "Records on their way from the answer to Postgres, and what was refused.",
    (
        Row(
            "Now",
            (
                Panel("Waiting in the spool", [Query("sum(mlcp_spool_bytes)", "bytes")], "bytes", 6, kind="stat"),
                Panel(
                    "Room for the spool",
                    [Query("min by (instance) (mlcp_spool_free_bytes)", "{{instance}}")],
                    "bytes",
                    6,
                    "Below a gigabyte it is an alert.",
                    "stat",
                ),
                Panel(
                    "Ingest lag", [Query("max(mlcp_ingest_lag_seconds)", "lag")], "s", 6, kind="stat", limits=(10, 60)
                ),
                Panel(
                    "Answers without a record, last day",
                    [Query("sum(increase(model_predictions_unlogged_total[1d]))", "answers")],
                    "short",
                    6,
                    kind="stat",
                    limits=(1,),
                ),
            ),
        ),
        Row(
            "Records",
            (
                Panel(
                    "Stored a second, beside answered",
                    [
                        Query(rate("kind", "mlcp_records_ingested_total"), "{{kind}} stored"),
                        Query("sum(rate(model_predictions_total[$__rate_interval]))", "predictions asked"),
                    ],
                    "reqps",
                    12,
                ),
                Panel(
                    "Bytes in the spool", [Query("sum by (instance) (mlcp_spool_bytes)", "{{instance}}")], "bytes", 12
                ),
                Panel(
                    "Set aside or kept as text",
                    [
                        Query("sum by (process) (increase(mlcp_dead_letters_total[1h]))", "{{process}}: unreadable"),
                        Query("sum(increase(mlcp_records_kept_safe_total[1h]))", "kept as text"),
                    ],
                    "short",
                    12,
                    "Per hour.",
                ),
                Panel("Age when stored", [Query("max(mlcp_ingest_lag_seconds)", "lag")], "s", 12, limits=(10, 60)),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "Shed",
                    [Query(rate("model_name", f"model_requests_shed_total{_MINE}"))],
                    "reqps",
                    8,
                    "Refused with 503 before a server was asked: more than it can answer in time.",
                ),
                Panel(
                    "Over a limit",
                    [
                        Query(
                            rate("model_name, limit", f"model_requests_rate_limited_total{_MINE}"),
                            "{{model_name}} {{limit}}",
                        )
                    ],
                    "reqps",
                    8,
                    "Refused with 429.",
                ),
                Panel(
                    "Snapshot of each router worker",
                    [
                        Query("max by (router_id) (mlcp_snapshot_revision)", "{{router_id}}"),
                        Query("max(mlcp_snapshot_published_revision)", "published"),
                    ],
                    "none",
                    8,
                    least=None,
                ),
            ),
        ),
    ),
)

PLATFORM: Final = Dashboard(
    "mlcp-platform",
    "mlcp / Platform health",
    "The processes, what they depend on, the admin API, the audit chain, keys and alerts.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Audit chain",
                    [Query("min(mlcp_audit_chain_intact)", "chain")],
                    "none",
                    3,
                    kind="stat",
                    words=((0, "broken", "red"), (1, "intact", "green")),
                ),
                Panel(
                    "Audit links",
                    [Query("max(mlcp_audit_links)", "links"), Query("max(mlcp_audit_unsigned_links)", "unsigned")],
                    "short",
                    3,
                    "Unsigned: not yet covered by an exported checkpoint.",
                    "stat",
                ),
                Panel(
                    "Chain last verified",
                    [Query("time() - max(mlcp_audit_verified_timestamp_seconds)", "ago")],
                    "s",
                    3,
                    kind="stat",
                    limits=(600, 3600),
                ),
                Panel(
                    "Lease of the leader",
                    [Query("max(mlcp_leader_lease_seconds)", "left")],
                    "s",
                    3,
                    "Below 0 nobody leads.",
                    "stat",
                    least=None,
                ),
                Panel(
                    "Targets up",
                    [Query('sum(up{job=~"mlcp.*"})', "up"), Query('count(up{job=~"mlcp.*"})', "all")],
                    "short",
                    4,
                    kind="stat",
                ),
                Panel(
                    "Alerts",
                    [Query('sum(ALERTS{alertstate="firing"}) or vector(0)', "firing")],
                    "short",
                    4,
                    kind="stat",
                    limits=(1,),
                ),
                Panel(
                    "First key to expire",
                    [Query("min(mlcp_key_expires_timestamp_seconds) - time()", "left")],
                    "s",
                    4,
                    kind="stat",
                    least=None,
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "Since the last heartbeat",
                    [
                        Query(
                            "max by (instance, process) (time() - mlcp_process_heartbeat_timestamp_seconds)",
                            "{{process}} {{instance}}",
                        )
                    ],
                    "s",
                    12,
                    "Renewed every 5 s.",
                    limits=(20, 60),
                ),
                Panel(
                    "What they depend on",
                    [Query("min by (process, dependency) (mlcp_dependency_up)", "{{dependency}} for the {{process}}")],
                    "none",
                    12,
                    kind="state-timeline",
                    words=((0, "away", "red"), (1, "answers", "green")),
                ),
            ),
        ),
        Row(
            "Admin API",
            (
                Panel(
                    "Requests by status",
                    [Query(rate("method, status", "mlcp_api_requests_total"), "{{method}} {{status}}")],
                    "reqps",
                    12,
                    stacked=True,
                ),
                Panel(
                    "Time to answer",
                    [
                        Query(
                            f"histogram_quantile({q}, {rate('le, method', 'mlcp_api_request_seconds_bucket')})",
                            f"{{{{method}}}} p{q * 100:g}",
                        )
                        for q in (0.5, 0.95)
                    ],
                    "s",
                    12,
                ),
            ),
        ),
        Row(
            "Alerts",
            (
                Panel("Firing and pending", [], "none", 12, kind="alertlist"),
                Panel(
                    "Keys by when they expire",
                    [Query("mlcp_key_expires_timestamp_seconds - time()", "{{key}}")],
                    "s",
                    12,
                    kind="bargauge",
                    least=None,
                ),
            ),
        ),
    ),
    models=False,
)
