"""Records as rows. Pure: bytes in, tuples in the order of adapters.store.ingest out."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from control_plane.adapters.store.ingest_counts import hashed_unit
from control_plane.contracts.records import RECORD_VERSION, PredictionRecord, Status

_MAX = 2**63 - 1
_MAX_INT4 = 2**31 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_US: Final = 253_402_300_800_000_000
_SUSPECT: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|[eE][+-]?[0-9]{4,}|[0-9.]{400,}")

Row = tuple[object, ...]


class OutcomeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome as it lies in the spool; see contracts.records.Outcome."""

    outcome_id: UUID
    model: str
    name: str
    value: msgspec.Raw
    observed_at_us: int
    received_at_us: int
    prediction_id: UUID | None = None
    unit_id: str | None = None
    currency: str | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """PredictionRecord with its ids parsed; a test holds the two equal."""

    v: int
    prediction_id: UUID
    model: str
    status: Status
    received_at_us: int
    latency_us: int
    epoch: int
    revision: int
    assigned_variant: str | None = None
    assigned_version: str | None = None
    served_variant: str | None = None
    served_version: str | None = None
    fallback_reason: str | None = None
    pinned: bool = False
    shadow: bool = False
    rollout_id: UUID | None = None
    step: int | None = None
    unit_id: str | None = None
    request_id: str | None = None
    features: msgspec.Raw = msgspec.Raw(b"null")
    output: msgspec.Raw = msgspec.Raw(b"null")
    threshold: float | None = None
    decision: str | None = None


_decode = msgspec.json.Decoder(_Record).decode
_decode_outcome = msgspec.json.Decoder(OutcomeRecord).decode
_days: dict[int, datetime] = {}


def prediction(record: bytes, *, careful: bool = False) -> tuple[Row, date]:
    """The row of one prediction record and its day partition. `careful`: keep JSON Postgres might refuse as text.

    Raises:
        ValueError: not a prediction record of this version, or a number no column can hold.
    """
    try:
        r = _decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    if r.v != RECORD_VERSION:
        raise ValueError(f"record version {r.v} is not {RECORD_VERSION}")
    if r.prediction_id.version != 7:
        raise ValueError("prediction_id is not a UUIDv7")
    if not (0 <= r.received_at_us < _YEAR_10000_US and 0 <= r.epoch <= _MAX and 0 <= r.revision <= _MAX):
        raise ValueError("a number is out of range")
    if r.step is not None and not 0 <= r.step <= _MAX_INT4:
        raise ValueError("step is out of range")
    day, unit = _day(r.prediction_id.int >> 80), _text(r.unit_id)
    row = (
        day,
        r.prediction_id,
        _text(r.model),
        r.status,
        _EPOCH + timedelta(microseconds=r.received_at_us),
        max(0, min(r.latency_us, _MAX_INT4)),
        r.epoch,
        r.revision,
        _text(r.assigned_variant),
        _text(r.assigned_version),
        _text(r.served_variant),
        _text(r.served_version),
        _text(r.fallback_reason),
        r.pinned,
        r.shadow,
        r.rollout_id,
        r.step,
        unit,
        _text(r.request_id),
        storable(bytes(r.features), careful=careful),
        storable(bytes(r.output), careful=careful),
        r.threshold,
        _text(r.decision),
        None if r.rollout_id is None or unit is None else hashed_unit(r.rollout_id, unit),
    )
    return row, day.date()


def outcome(record: bytes, *, careful: bool = False) -> Row:
    """The row of one outcome. Raises ValueError like `prediction`."""
    try:
        r = _decode_outcome(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    if (r.prediction_id is None) == (r.unit_id is None):
        raise ValueError("not exactly one of prediction_id and unit_id")
    if not (0 <= r.observed_at_us < _YEAR_10000_US and 0 <= r.received_at_us < _YEAR_10000_US):
        raise ValueError("a time is out of range")
    value = storable(bytes(r.value), careful=careful)
    return (
        r.outcome_id,
        _text(r.model),
        _text(r.name),
        value,
        _text(r.currency),
        r.observed_at_us,
        r.received_at_us,
        r.prediction_id,
        _text(r.unit_id),
    )


def storable(raw: bytes, *, careful: bool = False) -> str | None:
    """JSON text for a jsonb column. What jsonb refuses (\\u0000, lone surrogates, huge numbers) is kept as text,
    `{"$raw": "..."}`, exactly as it came. `careful` also keeps everything that only might be refused.
    """
    if raw == b"null":
        return None
    text = raw.decode("utf-8", "backslashreplace")
    if (b"\\u" in raw or careful) and _SUSPECT.search(raw):
        return msgspec.json.encode({"$raw": text}).decode()
    return text


def as_text(row: Row, columns: tuple[int, ...]) -> Row:
    """The row with these JSON columns kept as text whatever they hold: what nothing can refuse."""
    return tuple(
        msgspec.json.encode({"$raw": value}).decode() if index in columns and value is not None else value
        for index, value in enumerate(row)
    )


def _text(value: str | None) -> str | None:
    """Postgres' text cannot hold NUL."""
    return value.replace("\0", "\ufffd") if value is not None and "\0" in value else value


def _day(milliseconds: int) -> datetime:
    number = milliseconds // 86_400_000
    day = _days.get(number)
    if day is None:
        if number >= _YEAR_10000_US // 86_400_000_000:
            raise ValueError("prediction_id is from beyond the year 9999")
        day = _days[number] = datetime.fromtimestamp(number * 86_400, UTC)
        if len(_days) > 1000:
            _days.pop(next(iter(_days)))
    return day


assert set(_Record.__struct_fields__) == set(PredictionRecord.__struct_fields__)
