"""What a model server answers, and what of it goes into the answer and the record: the same bytes, never re-encoded."""

import time
from typing import Final

import msgspec

from control_plane.contracts.records import RECORD_VERSION, Status
from control_plane.router.problems import Refused

REFUSALS: Final = frozenset({400, 413, 415, 422})  # what a server says about the body, not about itself


class ModelAnswer(msgspec.Struct):
    """The body of a 200."""

    output: msgspec.Raw
    decision: str | None = None
    threshold: float | None = None
    reasons: msgspec.Raw = msgspec.Raw()  # empty: none


class _Problem(msgspec.Struct):
    type: str = "invalid-input"
    title: str = "Input cannot be used"
    detail: str = "The model server refuses this body."
    reasons: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(ModelAnswer).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode
_encode = msgspec.json.encode
_tails: dict[tuple[str | None, float | None], bytes] = {}


def parse(data: bytes) -> ModelAnswer | None:
    """The answer; None where it is none, and so the server is at fault."""
    try:
        if not data.isascii():
            data.decode()  # it is passed on unread, so the text has to be sound here
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def tail(answer: ModelAnswer) -> bytes:
    """`,"decision":"block","threshold":0.4`: there are few of them, so they are encoded once."""
    decision, threshold = answer.decision, answer.threshold
    if decision is None and threshold is None:
        return b""
    known = _tails.get((decision, threshold))
    if known is None:
        known = b"" if decision is None else b',"decision":%b' % _encode(decision)
        known += b"" if threshold is None else b',"threshold":%b' % _encode(threshold)
        if len(_tails) < 1000:
            _tails[decision, threshold] = known
    return known


def record(
    prediction_id: bytes,
    status: Status,
    received_us: int,
    started: float,
    *,
    route: bytes,
    served: bytes,
    extra: bytes,
    features: msgspec.Raw,
    answer: bytes,
) -> bytes:
    """A prediction record (contracts.records). Members come encoded, each with a leading comma.

    `started`: perf_counter when the request was complete.
    """
    return b'{"v":%d,"prediction_id":"%b","status":"%b","received_at_us":%d,"latency_us":%d%b%b%b,"features":%b%b}' % (
        RECORD_VERSION,
        prediction_id,
        status.encode(),
        received_us,
        int((time.perf_counter() - started) * 1e6),
        route,
        served,
        extra,
        features,
        answer,
    )


def refusal(status: int, data: bytes) -> Refused:
    """The model server's own problem document as our answer."""
    try:
        problem = _decode_problem(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = _Problem()
    slug = problem.type.rpartition("/")[2]
    return Refused(status, slug, problem.title, problem.detail, reasons=problem.reasons)
