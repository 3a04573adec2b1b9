"""Logged rows and two versions' answers to them -> what the domain adds up. No I/O."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from control_plane.adapters.scorers import Scored
from control_plane.domain import truth
from control_plane.domain.business import number
from control_plane.domain.model_config import Label, ModelConfig, Problem
from control_plane.domain.replay.examples import Examples, masked
from control_plane.domain.replay.report import Consistency, Example, Latency, Quantiles
from control_plane.domain.replay.sums import Floats, Ints, Known, Rows, Side, Sums, Words
from control_plane.services.logged_rows import Columns

_SAME: Final = 1e-6  # of a score, relative beyond 1: what a sum in another order may differ by
_SEGMENTS: Final = 50


class _Output(msgspec.Struct):
    probability: object = None
    value: object = None
    label: object = None


_output = msgspec.json.Decoder(_Output).decode


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared, and how its answers and labels are read."""

    baseline: str
    config: ModelConfig | None  # the baseline's: labels, costs, words
    candidate: ModelConfig | None
    sample: float
    segment: str | None
    now: datetime

    @property
    def problem(self) -> Problem:
        return self.config.problem if self.config else Problem.OPAQUE


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of a piece that are replayed, as columns; `unit`: bytes of the customer's hash, eight a row."""

    columns: Columns
    unit: bytes


@dataclass(slots=True)
class Times:
    """Microseconds a row: of whole chunks with their rows, and of rows alone."""

    batch: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    single: list[float] = field(default_factory=list[float])

    def add(self, found: Scored) -> None:
        rows = sum(count for count, _ in found.batch_us)
        if rows:
            self.batch.append((rows, sum(us for _, us in found.batch_us) / rows))
        self.single += found.single_us

    def shown(self) -> Latency:
        weights = [count for count, _ in self.batch]
        return Latency(
            _quantiles([us for _, us in self.batch], weights), _quantiles(self.single, [1] * len(self.single))
        )


class Fold:
    """Everything a replay keeps."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        config = subject.config
        yes_no = config.decision if config and config.problem is Problem.BINARY else None
        self.words = Words(yes_no.negative, yes_no.positive) if yes_no else Words()
        self.sums = Sums(subject.problem, config.costs if config else None)
        self.examples = Examples()
        self.left_out, self.versions, self.refusals = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
        self.refused = Counter[str]()
        self.times = {"baseline": Times(), "candidate": Times()}
        self.segments = Words(most=_SEGMENTS)
        self._label = config.label if config else Label()
        self._matured = (truth.matured(self._label, subject.now) - _EPOCH) / timedelta(microseconds=1)
        self._checked = [0, 0, 0]  # rows, differ, decided otherwise
        self._largest = 0.0
        own = config.costs.false_negative_column if config and config.costs else None
        self._reads = _reader(own, subject.segment)

    def choose(self, columns: Columns) -> Chosen:
        """The rows to replay: answered, by nobody's pin and no shadow's, of the sample."""
        kept: list[int] = []
        units: list[bytes] = []
        share = round(self._subject.sample * 2**32)
        facts = zip(*(columns[name] for name in _CHOOSES), strict=True)
        for at, (status, pinned, shadow, features, unit, identity) in enumerate(facts):
            why = _left_out(status, pinned, shadow, features)
            if why is not None:
                self.left_out[why] += 1
                continue
            hashed = hashlib.blake2b((unit or identity).encode(), digest_size=8).digest()
            if share < 2**32 and int.from_bytes(hashed[4:], "little") >= share:
                self.left_out["not in the sample"] += 1
                continue
            kept.append(at)
            units.append(hashed)
        chosen = {name: [values[at] for at in kept] for name, values in columns.items()}
        self.versions.update(version or "none" for version in chosen["served_version"])
        return Chosen(chosen, b"".join(units))

    def add(self, rows: Chosen, baseline: Scored, candidate: Scored) -> None:
        columns, n = rows.columns, len(rows.columns["features"])
        for name, found in (("baseline", baseline), ("candidate", candidate)):
            self.refused[name] += len(found.refused)
            self.times[name].add(found)
        self.refusals.update((feature, reason) for _, feature, reason in candidate.refused)
        before = self._side(baseline, self._subject.config)
        after = self._side(candidate, self._subject.candidate)
        self._check(columns, before)
        state, real = self._truths(columns)
        amounts, segment = self._read(columns["features"])
        answered = np.ones(n, dtype=np.bool_)
        for found in (baseline, candidate):
            answered[[at for at, _, _ in found.refused]] = False
        mine = np.nonzero(answered)[0]
        self._show(columns, before, after, mine)
        self.sums.fold(
            Rows(
                np.frombuffer(rows.unit, dtype="<u8")[mine],
                Side(before.score[mine], before.said[mine]),
                Side(after.score[mine], after.said[mine]),
                state[mine],
                real[mine],
                amounts[mine],
                None if segment is None else segment[mine],
            )
        )

    def consistency(self) -> Consistency:
        rows, differ, decisions = self._checked
        version = self._subject.baseline
        if not rows:
            why = f"Version {version} answered none of these rows then, so it is not checked."
        elif not differ:
            why = f"Version {version} says again what it said then."
        else:
            why = f"Version {version} does not say again what it said then in {differ:,} of {rows:,} rows: skew."
        return Consistency(rows, differ, decisions, self._largest, why)

    def _side(self, found: Scored, config: ModelConfig | None) -> Side:
        scores = np.array(found.score, dtype=np.float64)
        if not _binary(self._subject) or config is None:
            return Side(scores, np.array([self.words.number(word) for word in found.said], dtype=np.int64))
        numbers = {config.decision.negative: 0, config.decision.positive: 1}
        said = np.array([numbers.get(word, -1) if word else -1 for word in found.said], dtype=np.int64)
        if config.decision.threshold is not None:  # a stranger's answer decides nothing by itself
            above = (scores >= config.decision.threshold).astype(np.int64)
            said = np.where((said < 0) & np.isfinite(scores), above, said)
        return Side(scores, said)

    def _check(self, columns: Columns, baseline: Side) -> None:
        """The serving version against its own log."""
        for at, version in enumerate(columns["served_version"]):
            if version != self._subject.baseline or columns["output"][at] is None:
                continue
            then = _output(columns["output"][at])
            score = number(then.probability if then.probability is not None else then.value)
            now = float(baseline.score[at])
            word = columns["decision"][at] or (then.label if isinstance(then.label, str) else None)
            if score is None and word is None:
                continue
            self._checked[0] += 1
            apart = 0.0
            if score is not None:
                apart = abs(score - now) if math.isfinite(now) else math.inf
            said = int(baseline.said[at])
            decided = word is not None and said >= 0 and self.words.word(said) != word
            if apart > _SAME * max(1.0, abs(score or 0.0)) or decided:
                self._checked[1] += 1
                self._checked[2] += decided
                if math.isfinite(apart):
                    self._largest = max(self._largest, apart)

    def _truths(self, columns: Columns) -> tuple[Ints, Floats]:
        config, n = self._subject.config, len(columns["features"])
        state, real = np.full(n, Known.UNKNOWN, dtype=np.int64), np.full(n, np.nan)
        if config is None:
            return state, real
        for at, (received, outcomes, word) in enumerate(
            zip(columns["received_at"], columns["outcomes"], columns["decision"], strict=True)
        ):
            if received > self._matured:
                state[at] = Known.WAITING
                continue
            reported = _newest(outcomes)
            said = truth.decided(config, word, None)
            found = truth.known(config, reported, said=said)
            if found is not None:
                state[at] = Known.LABELLED
                real[at] = self.words.number(found) if isinstance(found, str) else float(found)
            elif reported is None and self._label.depends_on_decision and said is not False:
                state[at] = Known.HIDDEN
        return state, real

    def _read(self, features: Sequence[str]) -> tuple[Floats, Ints | None]:
        """What a false no costs, and the segment, as the features say."""
        amounts = np.full(len(features), np.nan)
        segment = None if self._subject.segment is None else np.zeros(len(features), dtype=np.int64)
        if self._reads is None:
            return amounts, segment
        for at, text in enumerate(features):
            paid, value = self._reads(text)
            amount = number(paid)
            if amount is not None:
                amounts[at] = amount
            if segment is not None:
                segment[at] = self._segment(value)
        return amounts, segment

    def _segment(self, value: object) -> int:
        name = value if isinstance(value, str) else "-" if value is None else msgspec.json.encode(value).decode()
        return self.segments.number(name[:100])

    def _show(self, columns: Columns, before: Side, after: Side, mine: Ints) -> None:
        """Keep the examples that moved most."""
        for at in mine[(before.said[mine] >= 0) & (after.said[mine] >= 0)].tolist():
            if before.said[at] == after.said[at]:
                continue
            was, now = (self.words.word(int(side.said[at])) for side in (before, after))
            moved = abs(float(after.score[at] - before.score[at]))
            moved = moved if math.isfinite(moved) else 0.0
            if not self.examples.wants(was, now, moved):
                continue
            shown = masked(msgspec.json.decode(columns["features"][at]), self._subject.config)
            old, new = (_finite(float(side.score[at])) for side in (before, after))
            self.examples.offer(Example(columns["prediction_id"][at], was, now, old, new, shown), moved)


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_CHOOSES: Final = ("status", "pinned", "shadow", "features", "unit_id", "prediction_id")


def _binary(subject: Subject) -> bool:
    return subject.problem is Problem.BINARY


def _left_out(status: str, pinned: bool, shadow: bool, features: str | None) -> str | None:
    if shadow:
        return "copies for a shadow"
    if pinned:
        return "answered by a version the caller named"
    if status != "ok":
        return "answered by nobody"
    return "the features are not kept" if features is None else None


def _newest(outcomes: Sequence[Any]) -> object:
    """The value of the newest label; None where there is none."""
    labels = [one for one in outcomes if one["name"] == "label"]
    if not labels:
        return None
    newest = max(labels, key=lambda one: (one["observed_at"], one["received_at"]))
    return msgspec.json.decode(newest["value"])


def _reader(amount: str | None, segment: str | None) -> Callable[[str], tuple[object, object]] | None:
    """Decodes two members of the features, None for one that is not asked for; None where neither is."""
    named = {name: f"v{number}" for number, name in enumerate({amount, segment} - {None})}
    if not named:
        return None
    fields = [(name, object, None) for name in named.values()]
    renamed = {own: str(name) for name, own in named.items()}
    decode = msgspec.json.Decoder(msgspec.defstruct("Read", fields, rename=renamed)).decode

    def read(text: str) -> tuple[object, object]:
        found = decode(text)
        first, second = (getattr(found, named[name]) if name else None for name in (amount, segment))
        return first, second

    return read


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _quantiles(values: Sequence[float], weights: Sequence[int]) -> Quantiles | None:
    if not values:
        return None
    order = np.argsort(values)
    in_order, seen = np.array(values)[order], np.cumsum(np.array(weights)[order])
    p50, p95, p99 = in_order[np.searchsorted(seen, np.array((0.5, 0.95, 0.99)) * seen[-1])].tolist()
    return Quantiles(p50, p95, p99)
