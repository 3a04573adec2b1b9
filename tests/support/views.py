"""Answers of the admin API as JSON, for tests of its clients. Held against the contracts by being parsed with them."""

from typing import Any

ROLLOUT_ID = "0190a8f0-0000-7000-8000-000000000001"
AT = "2026-11-20T12:00:00Z"
API = "/api/v1"


def rollout(**changes: Any) -> dict[str, Any]:
    return {
        "id": ROLLOUT_ID,
        "model": "churn",
        "kind": "promotion",
        "candidate_version": "2",
        "stable_version": "1",
        "strategy": "blue_green",
        "steps": [],
        "bake_s": 600.0,
        "phase": "pending",
        "step": 0,
        "weight": 0.0,
        "cut_over": False,
        "applied": False,
        "waiting_for": "version 2 to be ready",
        "failures": 0,
        "reason": "better",
        "since": AT,
        "created_at": AT,
        "created_by": "admin",
        "closed_at": None,
        "revision": 1,
    } | changes


def page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "next": None}


def model(name: str = "churn", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "problem": "binary",
        "owner": "retention",
        "purpose": None,
        "created_at": AT,
        "production_version": "1",
        "previous_version": None,
        "staging_version": None,
        "newest_version": "2",
        "versions": 2,
        "open_rollout": None,
    } | changes


def version(number: str = "1", **changes: Any) -> dict[str, Any]:
    return {
        "model": "categorization",
        "version": number,
        "stage": "Development",
        "stage_since": AT,
        "semver": "1.0.0",
        "runtime": "native",
        "inferred": False,
        "digest": "sha256:" + "ab" * 32,
        "digest_from": "registration",
        "run_id": "0" * 32,
        "source": "mlflow-artifacts:/1/x/artifacts/model",
        "created_at": AT,
        "discovered_at": AT,
        "deleted_at": None,
        "metric": "average_precision",
        "metric_value": 0.85432,
        "deployment": {
            "id": ROLLOUT_ID,
            "state": "ready",
            "desired": "running",
            "error": None,
            "changed_at": AT,
            "warm_until": None,
        },
    } | changes


def prediction(**changes: Any) -> dict[str, Any]:
    return {
        "prediction_id": "0190a8f0-0000-7000-8000-0000000000aa",
        "model": "fraud",
        "model_version": "3",
        "variant": "stable",
        "output": {"probability": 0.91},
        "decision": "block",
        "threshold": 0.4,
    } | changes


def audit(seq: int = 7, **changes: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": AT,
        "action": "model.promote",
        "object": "model:churn",
        "actor": {"person": "admin", "role": "admin", "key": ROLLOUT_ID},
        "trigger": "cli",
        "before": None,
        "after": None,
        "reasons": ["better on the hold-out"],
        "evidence": None,
        "approver": None,
        "request_id": None,
        "hash": "ab" * 32,
    } | changes
