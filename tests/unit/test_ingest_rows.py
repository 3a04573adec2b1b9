import json
from datetime import date
from uuid import UUID

import msgspec
import pytest

from control_plane.adapters.store import ids, ingest_counts
from control_plane.adapters.store.ingest import OUTCOME_COLUMNS, PREDICTION_COLUMNS
from control_plane.contracts.records import PredictionRecord
from control_plane.ingest import rows


def record(**more: object) -> bytes:
    base: dict[str, object] = {
        "v": 1,
        "prediction_id": str(ids.new(at_ms=1_795_000_000_000)),
        "model": "churn",
        "status": "ok",
        "received_at_us": 1_795_000_000_000_000,
        "latency_us": 1200,
        "epoch": 1,
        "revision": 2,
    }
    return json.dumps(base | more).encode()


def column(row: rows.Row, name: str) -> object:
    return row[PREDICTION_COLUMNS.index(name)]


def test_a_record_becomes_the_row_of_its_ids_day() -> None:
    row, day = rows.prediction(record(features={"a": 1}, unit_id="u", assigned_variant="stable"))
    assert len(row) == len(PREDICTION_COLUMNS)
    assert day == date(2026, 11, 18)
    assert column(row, "features") == '{"a": 1}'
    assert column(row, "output") is None
    assert ingest_counts.reduced([row])[1] == {}, "without a rollout nobody is exposed"


def test_every_member_of_the_contract_is_parsed() -> None:
    parsed = msgspec.json.decode(record(), type=PredictionRecord)
    assert parsed.model == "churn"
    assert len(rows.outcome(_outcome())) == len(OUTCOME_COLUMNS)


def test_a_unit_is_hashed_differently_in_every_rollout() -> None:
    hashes = {ingest_counts.hashed_unit(UUID(int=n), "customer-1") for n in range(5)}
    assert len(hashes) == 5
    row, _ = rows.prediction(record(unit_id="u", assigned_variant="stable", rollout_id=str(UUID(int=1)), step=0))
    ((_, unit_hash),) = ingest_counts.reduced([row])[1]
    assert unit_hash == ingest_counts.hashed_unit(UUID(int=1), "u")


@pytest.mark.parametrize("raw", [rb'{"a":"x\u0000"}', rb'{"a":"\ud800"}', rb'{"a":"\uDFFF\uD800"}'])
def test_json_that_postgres_refuses_is_kept_as_text_exactly_as_it_came(raw: bytes) -> None:
    kept = rows.storable(raw)
    assert kept is not None
    assert json.loads(kept) == {"$raw": raw.decode()}
    assert rows.storable(rb'{"a":"\u00e9"}') == r'{"a":"\u00e9"}', "what it takes is not touched"


def test_numbers_that_only_might_be_refused_are_kept_as_text_when_careful() -> None:
    for raw in (b'{"a":1e9999999}', b'{"a":' + b"9" * 200_000 + b"}"):
        assert rows.storable(raw) == raw.decode()
        assert json.loads(str(rows.storable(raw, careful=True))) == {"$raw": raw.decode()}


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"\xff",
        record(v=2),
        record(status="great"),
        record(prediction_id="x"),
        record(prediction_id=str(UUID(int=4))),
        record(received_at_us=-1),
        record(revision=2**64),
        record(step=2**40),
        record(prediction_id="ffffffff-ffff-7fff-bfff-ffffffffffff"),
        b'{"features":' + b"[" * 100_000 + b"}",
    ],
)
def test_what_is_no_record_says_so(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        rows.prediction(bad)


def test_nul_never_reaches_a_text_column() -> None:
    row, _ = rows.prediction(record(unit_id="a\0b"))
    assert column(row, "unit_id") == "a\ufffdb"


def _outcome(**more: object) -> bytes:
    base: dict[str, object] = {
        "outcome_id": str(ids.new()),
        "model": "churn",
        "name": "label",
        "value": True,
        "observed_at_us": 1,
        "received_at_us": 2,
        "unit_id": "u",
    }
    return json.dumps(base | more).encode()


def test_an_outcome_has_exactly_one_subject() -> None:
    for bad in (_outcome(prediction_id=str(ids.new())), _outcome(unit_id=None), _outcome(observed_at_us=-5)):
        with pytest.raises(ValueError, match=r".+"):
            rows.outcome(bad)
