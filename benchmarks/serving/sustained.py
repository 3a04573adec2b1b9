"""The highest rate at which the log keeps up: probes that halve the interval, then the rate held for minutes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.serving.backlog import lag_s
from benchmarks.serving.load import Measured

LAG_S = 5.0  # what counts as keeping up
_PROBES, _TRIES = 5, 6
_STEP = 0.93  # a rate that was not held after all is lowered by this
_PUNCTUAL = 0.99  # share of the requests due that must be answered


@dataclass(frozen=True, slots=True)
class Probe:
    """`lag_s`: the largest seen. `settled_lag_s`: the largest of the last quarter, where growth would show."""

    rate: float
    seconds: float
    answered: int
    errors: int
    lag_s: float
    settled_lag_s: float
    p99_ms: float | None

    @property
    def held(self) -> bool:
        punctual = self.answered >= _PUNCTUAL * self.rate * self.seconds
        return punctual and not self.errors and self.lag_s < LAG_S


class Tracker:
    """Follows one open loop: how old the oldest answer is that is not in Postgres."""

    def __init__(self, ingested: Callable[[], int]) -> None:
        self._ingested, self._before = ingested, ingested()
        self._answered: list[tuple[float, int]] = [(0.0, 0)]
        self._lags: list[float] = []

    def second(self, t: float, answered: int) -> bool:
        """False once it is plain that the rate is not held."""
        self._answered.append((t, answered))
        self._lags.append(lag_s(self._answered, self._ingested() - self._before, t))
        return self._lags[-1] < 2 * LAG_S

    def probe(self, rate: float, seconds: float, result: Measured) -> Probe:
        tail = self._lags[-max(1, len(self._lags) // 4) :]
        known = result.p99_ms if result.p99_ms == result.p99_ms else None
        return Probe(
            rate=round(rate, 1),
            seconds=seconds,
            answered=result.answered,
            errors=result.errors,
            lag_s=round(max(self._lags, default=0.0), 2),
            settled_lag_s=round(max(tail, default=0.0), 2),
            p99_ms=known,
        )


@dataclass(slots=True)
class Search:
    """`probe`: (requests per second, seconds) -> what came of it."""

    probe: Callable[[float, float], Probe]
    probes: list[Probe] = field(default_factory=list)

    def run(self, peak: float, hold_s: float, probe_s: float) -> Probe:
        """The last probe of `hold_s`; `held` says whether it was."""
        low, high = 0.0, peak
        rate = 0.6 * peak
        for _ in range(_PROBES):
            if self.tried(rate, probe_s).held:
                low = rate
            else:
                high = rate
            rate = (low + high) / 2
        rate = low or high / 2
        last = self.tried(rate, hold_s)
        for _ in range(_TRIES - 1):
            if last.held:
                break
            rate *= _STEP
            last = self.tried(rate, hold_s)
        return last

    def tried(self, rate: float, seconds: float) -> Probe:
        found = self.probe(rate, seconds)
        self.probes.append(found)
        return found
