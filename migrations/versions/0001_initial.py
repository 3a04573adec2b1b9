"""Everything the control plane keeps, from the first day on.

`predictions` has no default partition on purpose: one would hide that the ingester stopped making day partitions.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("alias", sa.TEXT(), nullable=False),
        sa.Column("last_applied", sa.TEXT(), nullable=True),
        sa.Column("observed", sa.TEXT(), nullable=True),
        sa.Column("writing", sa.TEXT(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "alias"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("principal_id", sa.Uuid(), nullable=False),
        sa.Column("prefix", sa.TEXT(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.TEXT()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_index(op.f("ix_api_keys_principal_id"), "api_keys", ["principal_id"], unique=False)
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.TEXT(), nullable=False),
        sa.Column("object", sa.TEXT(), nullable=False),
        sa.Column("actor", sa.TEXT(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index(op.f("ix_audit_action"), "audit", ["action"], unique=False)
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)
    op.create_index(op.f("ix_audit_object"), "audit", ["object"], unique=False)
    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("version", sa.TEXT(), nullable=False),
        sa.Column("digest", sa.TEXT(), nullable=False),
        sa.Column("desired", sa.TEXT(), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column("address", sa.TEXT(), nullable=True),
        sa.Column("aux_address", sa.TEXT(), nullable=True),
        sa.Column("description", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.TEXT(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("warm_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_revision", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("desired IN ('running', 'stopped')", name=op.f("ck_deployments_desired_known")),
        sa.CheckConstraint(
            "state IN ('pending', 'starting', 'ready', 'failed', 'draining', 'stopped')",
            name=op.f("ck_deployments_state_known"),
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_live_deployment",
        "deployments",
        ["model", "version"],
        unique=True,
        postgresql_where=sa.text("state <> 'stopped'"),
    )
    op.create_table(
        "exposures",
        sa.Column("rollout_id", sa.Uuid(), nullable=False),
        sa.Column("unit_hash", sa.LargeBinary(), nullable=False),
        sa.Column("variant", sa.TEXT(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("fallbacks", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "unit_hash"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.TEXT(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("principal_id", "key"),
    )
    op.create_index(op.f("ix_idempotency_keys_at"), "idempotency_keys", ["at"], unique=False)
    op.create_table(
        "ingest_watermark",
        sa.Column("spool", sa.TEXT(), nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("stream_epoch", sa.TEXT(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("spool"),
    )
    op.create_table(
        "installation",
        sa.Column("only", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("only"),
    )
    op.create_table(
        "jobs_wanted",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=True),
        sa.Column("args", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column("progress", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.TEXT(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.TEXT(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("log_path", sa.TEXT(), nullable=True),
        sa.CheckConstraint("kind IN ('train', 'replay', 'report', 'notify')", name=op.f("ck_jobs_wanted_kind_known")),
        sa.CheckConstraint(
            "state IN ('wanted', 'queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_jobs_wanted_state_known"),
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_training_per_model",
        "jobs_wanted",
        ["model"],
        unique=True,
        postgresql_where=sa.text("kind = 'train' AND state IN ('wanted', 'queued', 'running')"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.TEXT(), nullable=False),
        sa.Column("holder", sa.TEXT(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "model_versions",
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("version", sa.TEXT(), nullable=False),
        sa.Column("stage", sa.TEXT(), nullable=False),
        sa.Column("stage_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.TEXT(), nullable=True),
        sa.Column("source", sa.TEXT(), nullable=False),
        sa.Column("digest", sa.TEXT(), nullable=True),
        sa.Column("digest_from", sa.TEXT(), nullable=True),
        sa.Column("runtime", sa.TEXT(), nullable=False),
        sa.Column("config", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("inferred", sa.Boolean(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("semver", sa.TEXT(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("discovered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported", sa.TEXT(), nullable=True),
        sa.CheckConstraint("runtime IN ('native', 'pyfunc')", name=op.f("ck_model_versions_runtime_known")),
        sa.CheckConstraint(
            "stage IN ('Development', 'Staging', 'Production', 'Archived')", name=op.f("ck_model_versions_stage_known")
        ),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_index("model_versions_stage", "model_versions", ["model", "stage"], unique=False)
    op.create_index(
        "one_production", "model_versions", ["model"], unique=True, postgresql_where=sa.text("stage = 'Production'")
    )
    op.create_table(
        "models",
        sa.Column("name", sa.TEXT(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("production_version", sa.TEXT(), nullable=True),
        sa.Column("previous_version", sa.TEXT(), nullable=True),
        sa.Column("salt", sa.TEXT(), nullable=False),
        sa.Column("traffic", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "outcomes",
        sa.Column("outcome_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("name", sa.TEXT(), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("currency", sa.TEXT(), nullable=True),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prediction_id", sa.Uuid(), nullable=True),
        sa.Column("unit_id", sa.TEXT(), nullable=True),
        sa.CheckConstraint("(prediction_id IS NULL) <> (unit_id IS NULL)", name=op.f("ck_outcomes_one_subject")),
        sa.PrimaryKeyConstraint("outcome_id"),
    )
    op.create_index("outcomes_prediction", "outcomes", ["prediction_id", "name"], unique=False)
    op.create_index("outcomes_unit", "outcomes", ["model", "unit_id", "name"], unique=False)
    op.create_table(
        "predictions",
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("status", sa.TEXT(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("latency_us", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("assigned_variant", sa.TEXT(), nullable=True),
        sa.Column("assigned_version", sa.TEXT(), nullable=True),
        sa.Column("served_variant", sa.TEXT(), nullable=True),
        sa.Column("served_version", sa.TEXT(), nullable=True),
        sa.Column("fallback_reason", sa.TEXT(), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("rollout_id", sa.Uuid(), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("unit_id", sa.TEXT(), nullable=True),
        sa.Column("request_id", sa.TEXT(), nullable=True),
        sa.Column("features", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("output", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("threshold", sa.Double(), nullable=True),
        sa.Column("decision", sa.TEXT(), nullable=True),
        sa.CheckConstraint(
            "status IN ('ok', 'invalid', 'error', 'timeout', 'shed')", name=op.f("ck_predictions_status_known")
        ),
        sa.PrimaryKeyConstraint("day", "prediction_id"),
        postgresql_partition_by="RANGE (day)",
    )
    op.create_index("predictions_model_received", "predictions", ["model", "received_at"], unique=False)
    op.create_table(
        "principals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person", sa.TEXT(), nullable=False),
        sa.Column("role", sa.TEXT(), nullable=False),
        sa.Column("models", postgresql.ARRAY(sa.TEXT()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('viewer', 'operator', 'approver', 'admin', 'auditor', 'predictor')",
            name=op.f("ck_principals_role_known"),
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "routers",
        sa.Column("router_id", sa.TEXT(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("pins", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("rejected", sa.TEXT(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("router_id"),
    )
    op.create_table(
        "snapshots",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("revision"),
    )
    op.create_table(
        "stage_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("version", sa.TEXT(), nullable=False),
        sa.Column("from_stage", sa.TEXT(), nullable=False),
        sa.Column("to_stage", sa.TEXT(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.TEXT(), nullable=False),
        sa.Column("reason", sa.TEXT(), nullable=False),
        sa.Column("rollout_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("stage_events_model_at", "stage_events", ["model", "at"], unique=False)
    op.create_table(
        "windows",
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("version", sa.TEXT(), nullable=False),
        sa.Column("variant", sa.TEXT(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("fallbacks", sa.BigInteger(), nullable=False),
        sa.Column("latency_us_sum", sa.BigInteger(), nullable=False),
        sa.Column("profile", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("model", "version", "variant", "hour"),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.TEXT(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("candidate_version", sa.TEXT(), nullable=False),
        sa.Column("stable_version", sa.TEXT(), nullable=True),
        sa.Column("plan", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("phase", sa.TEXT(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("paused_from", sa.TEXT(), nullable=True),
        sa.Column("reason", sa.TEXT(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.TEXT(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("published_revision", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('promotion', 'rollback')", name=op.f("ck_rollouts_kind_known")),
        sa.CheckConstraint(
            "phase IN ('pending', 'progressing', 'paused', 'baking', 'succeeded', 'aborted')",
            name=op.f("ck_rollouts_phase_known"),
        ),
        sa.ForeignKeyConstraint(
            ["model", "candidate_version"],
            ["model_versions.model", "model_versions.version"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_open_rollout",
        "rollouts",
        ["model"],
        unique=True,
        postgresql_where=sa.text("phase NOT IN ('succeeded', 'aborted')"),
    )
    op.create_index("rollouts_model_created", "rollouts", ["model", "created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("rollouts_model_created", table_name="rollouts")
    op.drop_index(
        "one_open_rollout", table_name="rollouts", postgresql_where=sa.text("phase NOT IN ('succeeded', 'aborted')")
    )
    op.drop_table("rollouts")
    op.drop_table("windows")
    op.drop_index("stage_events_model_at", table_name="stage_events")
    op.drop_table("stage_events")
    op.drop_table("snapshots")
    op.drop_table("routers")
    op.drop_table("principals")
    op.drop_index("predictions_model_received", table_name="predictions")
    op.drop_table("predictions")
    op.drop_index("outcomes_unit", table_name="outcomes")
    op.drop_index("outcomes_prediction", table_name="outcomes")
    op.drop_table("outcomes")
    op.drop_table("models")
    op.drop_index("one_production", table_name="model_versions", postgresql_where=sa.text("stage = 'Production'"))
    op.drop_index("model_versions_stage", table_name="model_versions")
    op.drop_table("model_versions")
    op.drop_table("leases")
    op.drop_index(
        "one_training_per_model",
        table_name="jobs_wanted",
        postgresql_where=sa.text("kind = 'train' AND state IN ('wanted', 'queued', 'running')"),
    )
    op.drop_table("jobs_wanted")
    op.drop_table("installation")
    op.drop_table("ingest_watermark")
    op.drop_index(op.f("ix_idempotency_keys_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("exposures")
    op.drop_index("one_live_deployment", table_name="deployments", postgresql_where=sa.text("state <> 'stopped'"))
    op.drop_table("deployments")
    op.drop_index(op.f("ix_audit_object"), table_name="audit")
    op.drop_index(op.f("ix_audit_at"), table_name="audit")
    op.drop_index(op.f("ix_audit_action"), table_name="audit")
    op.drop_table("audit")
    op.drop_index(op.f("ix_api_keys_principal_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("aliases")
