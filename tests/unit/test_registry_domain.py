"""Digests, inferred configs, alias moves and gate reports."""

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import model_config
from control_plane.domain.model_config import Feature, FeatureType, Problem
from control_plane.domain.registry import Mirror, Written, described, infer, mirror, name_problem, report, tree_digest
from model_servers.native import digest

versions = st.none() | st.sampled_from(["1", "2", "3"])
PYFUNC: dict[str, object] = {"flavors": {"python_function": {}, "sklearn": {}}}


def test_three_ways_to_digest_a_tree_agree(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b-d", "b/é"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    pairs = [(name, sha256(name.encode()).hexdigest()) for name in ("b/é", "a", "b-d", "b/c")]
    by_hand = "find . -type f | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(["sh", "-c", by_hand], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert tree_digest(pairs) == digest.of_folder(tmp_path) == f"sha256:{said.split()[0]}"
    with pytest.raises(ValueError, match="no files"):
        tree_digest([])


def test_a_signature_becomes_features_and_what_cannot_be_served_is_named() -> None:
    columns = """[{"type": "double", "name": "amount", "required": true}, {"type": "long", "name": "n"},
        {"type": "boolean", "name": "flag", "required": false}, {"type": "string", "name": "text"},
        {"type": "datetime", "name": "at"}, {"type": "array", "name": "list"}, {"type": "double"}]"""
    found = infer("credit", PYFUNC | {"signature": {"inputs": columns}})
    assert found.config.features == {
        "amount": Feature(FeatureType.NUMBER),
        "n": Feature(FeatureType.INTEGER),
        "flag": Feature(FeatureType.BOOLEAN, nullable=True),
        "text": Feature(FeatureType.TEXT),
    }
    assert (found.config.problem, model_config.problems(found.config)) == (Problem.OPAQUE, [])
    assert [problem.split("'")[1] for problem in found.problems[:2]] == ["at", "list"]
    assert "input 6" in found.problems[2]


@pytest.mark.parametrize(
    ("mlmodel", "named"),
    [
        (PYFUNC, "signature: the version has none"),
        (PYFUNC | {"signature": {"inputs": "no json"}}, "cannot be read"),
        (PYFUNC | {"signature": {"inputs": '[{"type": "tensor", "tensor-spec": {}}]'}}, "tensor without"),
        ({"signature": {"inputs": '[{"type": "long", "name": "a"}]'}}, "no python_function flavor"),
        ({}, "flavor"),
    ],
)
def test_a_version_nobody_can_serve_says_why(mlmodel: dict[str, object], named: str) -> None:
    assert any(named in problem for problem in infer("m", mlmodel).problems)


def test_a_name_that_fits_no_url_is_a_problem_in_words() -> None:
    assert name_problem("churn-2") is None
    assert "My Model" in (name_problem("My Model") or "")


@given(versions, versions, st.none() | st.builds(Written, versions, versions, st.none() | st.sampled_from(["", "2"])))
def test_an_alias_is_ours_to_write_exactly_where_it_says_what_we_wrote(
    desired: str | None, observed: str | None, written: Written | None
) -> None:
    decision = mirror(desired, observed, written)
    known = written or Written()
    ours = {known.last_applied} | ({known.writing or None} if known.writing is not None else set())
    assert (decision is Mirror.CONVERGED) == (observed == desired)
    if decision is Mirror.APPLY:
        assert observed in ours
    if decision in {Mirror.HAND_MOVED, Mirror.FOUND}:
        assert observed not in ours


def test_what_was_there_before_us_is_left_alone_until_a_hand_moves_it_or_we_want_something_there() -> None:
    assert mirror(None, "7", None) is Mirror.FOUND
    assert mirror(None, "7", Written(observed="7")) is Mirror.FOUND
    assert mirror(None, "8", Written(observed="7")) is Mirror.HAND_MOVED
    assert mirror("1", "7", Written(observed="7")) is Mirror.HAND_MOVED
    assert mirror("2", "1", Written("1", "1")) is Mirror.APPLY
    assert mirror(None, "1", Written("1", "1")) is Mirror.APPLY
    assert mirror(None, "8", Written(None, "8", "")) is Mirror.HAND_MOVED  # its removal was begun
    assert mirror("3", "2", Written("1", "1", "2")) is Mirror.APPLY  # our write of 2 was not recorded


@given(st.text(alphabet="ab \n*", max_size=30), st.lists(st.sampled_from(["metric: none", "digest: none"]), max_size=2))
def test_the_report_replaces_itself_and_leaves_peoples_words(own: str, missing: list[str]) -> None:
    first = described(own, report("Staging", ["cost: too high"]).paragraph)
    told = report("Staging", missing)
    second = described(first, told.paragraph)
    assert described(second, told.paragraph) == second
    assert own.strip() in second
    assert "too high" not in second
    assert all(text in second for text in missing)


def test_a_report_names_the_gates_in_a_tag_and_changes_with_the_stage() -> None:
    told = report("Staging", ["metric: declares none.", "cost: not measured.", "metric: again."])
    assert told.gates == "missing: metric, cost"
    assert told.hash != report("Production", ["metric: declares none.", "cost: not measured.", "metric: again."]).hash
    assert report("Staging", []).gates == "all passed"
