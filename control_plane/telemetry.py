"""Logs, readiness and the one list of metric names."""

import logging
import os
import sys
from pathlib import Path

import structlog
from structlog.tracebacks import ExceptionDictTransformer

# Never with locals, which is structlog's default: they hold features, keys and passwords.
_TRACEBACK = ExceptionDictTransformer(show_locals=False)


def configure_logging(process: str, *, level: str = "INFO") -> None:
    """JSON lines on stderr, one event each; `process` is in every line. Call once, first thing in a main."""
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without the frames' locals: they would carry features and ids of customers into the logs.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def mark_ready() -> None:
    """Tell the supervisor, if there is one, that this process does its work from now on."""
    if path := os.environ.get("MLCP_READY_FILE"):
        Path(path).write_text(str(os.getpid()))


class Metric:
    """Names people's dashboards and alert rules know. Labels in brackets; units in the name."""

    PREDICTIONS = "model_predictions_total"  # [model_name, status, variant, version]
    PREDICTION_LATENCY = "model_prediction_latency_seconds"  # [model_name]; inside the router
    INFERENCE_LATENCY = "model_inference_latency_seconds"  # [model_name, version]; inside the model server
    INPUT_WARNINGS = "model_input_warnings_total"  # [model_name, version, feature, kind]; kind: unseen, out_of_range
    ACCURACY = "model_accuracy"  # [model_name, period]
    AVAILABILITY = "model_availability"  # [model_name, period]; answered / asked
    BUSINESS = "model_business_value"  # [model_name, metric, unit, period]; declared in model.yaml
    QUALITY = "model_quality"  # [model_name, version, metric, period]; metric: recall, roc_auc, rmse, cost, ...
    LABELLED = "model_labelled_predictions"  # [model_name, version, period]; what the two above stand on
    DRIFT_SCORE = "model_drift_score"  # [model_name, drift_type]; largest PSI, drop of the metric, share of bad rows
    DRIFT_ALARM = "model_drift_alarm"  # [model_name]; 1 while an incident is open
    TRAINING_DURATION = "mlflow_model_training_duration_seconds"  # [model_type, experiment_id]
    DEPLOYMENTS = "mlflow_model_deployments_total"  # [model_name, stage, status]
    ACTIVE_MODELS = "mlflow_active_models"  # [service_name]
    TRAINING_DATA_REFUSED = "model_training_data_refused_total"  # [model_name]
    FALLBACKS = "model_fallbacks_total"  # [model_name, reason]
    SHED = "model_requests_shed_total"  # [model_name]
    RATE_LIMITED = "model_requests_rate_limited_total"  # [model_name, limit]; limit: key, model
    UNLOGGED = "model_predictions_unlogged_total"  # [model_name]; answered with logged: false
    SPOOL_BYTES = "mlcp_spool_bytes"  # waiting on this host's disk
    DEAD_LETTERS = "mlcp_dead_letters_total"  # [process]; records set aside unread
    UNSTORABLE = "mlcp_records_kept_safe_total"  # records whose JSON Postgres refuses, kept as text
    INGESTED = "mlcp_records_ingested_total"  # [kind]
    INGEST_LAG = "mlcp_ingest_lag_seconds"
    AUDIT_UNSIGNED = "mlcp_audit_unsigned_links"  # links of the audit chain that no exported checkpoint covers
    WEBHOOKS = "mlcp_webhooks_total"  # [webhook, outcome]; outcome: accepted, unsigned, replayed, malformed, ...
    SNAPSHOT_REVISION = "mlcp_snapshot_revision"  # [router_id]
    SNAPSHOT_PUBLISHED = "mlcp_snapshot_published_revision"  # what routers should have
    ROUTERS = "mlcp_routers"  # [state]; live: workers heard of lately; behind: of those, without the newest snapshot
    HEARTBEAT = "mlcp_process_heartbeat_timestamp_seconds"  # [process]; Unix time, renewed every 5 s
    DEPENDENCY_UP = "mlcp_dependency_up"  # [process, dependency]; 1 while it answers
    LEADER_LEASE = "mlcp_leader_lease_seconds"  # until the reconciler's lease runs out; below 0 nobody leads
    SPOOL_FREE = "mlcp_spool_free_bytes"  # left on the file system of this host's spool
    ROLLOUT_AGE = "model_rollout_phase_seconds"  # [model_name, phase]; of the open rollout; 0 where there is none
    ROLLOUT_OVERDUE = "model_rollout_overdue_seconds"  # [model_name]; beyond what its plan gives the phase
    ROLLOUT_WEIGHT = "model_rollout_candidate_weight_ratio"  # [model_name]
    ROLLOUT_UNITS = "model_rollout_units"  # [model_name, variant]; closed customers the comparison stands on
    ROLLOUT_EFFECT = "model_rollout_effect"  # [model_name, metric, bound]; candidate - baseline; estimate, low, high
    ROLLOUT_VERDICT = "model_rollout_verdict"  # [model_name]; of the last look: 1 pass, 0 inconclusive, -1 fail
    ROLLOUT_SRM = "model_rollout_srm"  # [model_name]; 1 while the arms' sizes contradict their weights
    PRODUCTION = "model_production_info"  # [model_name, version]; 1: this version answers customers
    REVIEW_DUE = "model_review_due_timestamp_seconds"  # [model_name]; Unix time of the next review
    SERVERS = "model_servers"  # [model_name, state]; pending, starting, ready, failed, draining
    JOBS = "mlcp_jobs"  # [kind, state]; on record, ended ones included
    JOB_WAITING = "mlcp_job_waiting_seconds"  # [kind]; age of the oldest job nobody has begun
    KEY_EXPIRES = "mlcp_key_expires_timestamp_seconds"  # [key]; Unix time, by the key's prefix
    AUDIT_INTACT = "mlcp_audit_chain_intact"  # 1; 0 from the first look that found a link which does not follow
    AUDIT_LINKS = "mlcp_audit_links"  # length of the chain
    AUDIT_VERIFIED = "mlcp_audit_verified_timestamp_seconds"  # Unix time of the last verification
    SIGN_INS_FAILED = "mlcp_sign_ins_failed_total"  # [kind]; key, or what of a token: signature, time, audience, ...
    API_REQUESTS = "mlcp_api_requests_total"  # [method, status]
    API_LATENCY = "mlcp_api_request_seconds"  # [method]
