"""The assignment a client can compute for itself, without the server's libraries, is the frozen one."""

import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.assignment import assign, bucket, canary_slices

VECTORS = Path(__file__).parents[1] / "contract" / "assignment_vectors.json"


CASES = json.loads(VECTORS.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['salt']}-{case['unit_id'][:12]}-{case['weight']}")
def test_the_vectors_hold(case: dict[str, Any]) -> None:
    assert bucket(case["salt"], case["unit_id"]) == case["bucket"]
    variants = canary_slices(case["weight"])
    order = [next(v for v in variants if v.key == key) for key in ("candidate", "stable", "baseline")]
    assert assign(order, salt=case["salt"], unit_id=case["unit_id"]).key == case["variant"]
