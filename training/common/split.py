"""Which rows fit, which choose and calibrate, which only judge. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from control_plane.errors import InvalidData

VALIDATION_SHARE = 0.2  # of the rows a model may learn from
_SECOND = 1_000_000
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parts:
    """Row numbers. `fit` and `validation` choose the kind, calibrate and set the threshold; the chosen kind is fitted
    again on `train`, which is everything whose label was known when the hold-out began. `test_from`: microseconds."""

    fit: Rows
    validation: Rows
    train: Rows
    holdout: Rows
    test_from: int | None = None


def by_time(
    times: NDArray[np.int64],
    known: NDArray[np.bool_],
    *,
    delay_s: int,
    test_share: float,
    test_from: str | None = None,
    train_from: str | None = None,
    warm_up_days: int = 0,
) -> Parts:
    """Newest rows judge. A row is learnt from only if its label was known, `delay_s` after its event, at that moment.

    Rows of one instant are never divided. `times` in microseconds; `test_from`, `train_from` ISO dates. Rows before
    `train_from`, or of the first `warm_up_days`, are in no part.
    """
    usable = np.flatnonzero(known)
    if train_from is not None:
        usable = usable[times[usable] >= _moment(train_from)]
    if warm_up_days:
        usable = usable[times[usable] >= times.min(initial=2**62) + warm_up_days * 86_400 * _SECOND]
    delay = delay_s * _SECOND
    start = _moment(test_from) if test_from is not None else _newest(times[usable], test_share)
    holdout = usable[times[usable] >= start]
    train = usable[(times[usable] < start) & (times[usable] + delay <= start)]
    turn = _newest(times[train], VALIDATION_SHARE)
    validation = train[times[train] >= turn]
    fit = train[(times[train] < turn) & (times[train] + delay <= turn)]
    parts = Parts(fit, validation, train, holdout, start)
    _refuse_empty(parts, f"with labels known after {delay_s} s")
    return parts


def by_identity(known: NDArray[np.bool_], identities: Sequence[str], *, test_share: float) -> Parts:
    """Without a time column: each identity has its place for ever, whatever the seed and whoever else is there.

    A version is so never judged on rows an earlier one learnt from. Rows of one identity go to one part: a customer
    never judges himself. Shares are met as well as independent draws meet them.
    """
    usable = np.flatnonzero(known)
    place = {identity: _place(identity) for identity in set(identities)}
    at = np.array([place[identities[row]] for row in usable.tolist()], dtype=np.float64)
    learning = 1 - test_share
    holdout, train = usable[at >= learning], usable[at < learning]
    validating = at[at < learning] >= learning * (1 - VALIDATION_SHARE)
    parts = Parts(train[~validating], train[validating], train, holdout)
    _refuse_empty(parts, "by identity")
    return parts


def _place(identity: str) -> float:
    """In 0..1, evenly spread. The key is part of every evidence: never change it."""
    digest = hashlib.blake2b(identity.encode(), digest_size=8, key=b"mlcp training split 1").digest()
    return int.from_bytes(digest, "big") / 2**64


def _newest(times: NDArray[np.int64], share: float) -> int:
    """The moment from which on the newest `share` of rows lies; rows of that moment included."""
    if not len(times):
        return 0
    return int(np.sort(times)[min(round(len(times) * (1 - share)), len(times) - 1)])


def _moment(iso: str) -> int:
    return int(np.datetime64(datetime.fromisoformat(iso).replace(tzinfo=None), "us").astype(np.int64))


def _refuse_empty(parts: Parts, how: str) -> None:
    sizes = {name: len(getattr(parts, name)) for name in ("fit", "validation", "holdout")}
    if short := [f"{name} {size}" for name, size in sizes.items() if size < 20]:
        raise InvalidData(f"Divided {how}, too few rows are left: {', '.join(short)}; 20 each are needed.", **sizes)
