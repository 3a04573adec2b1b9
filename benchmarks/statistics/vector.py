"""The product's comparison of two arms for many simulated tests at once: the same decisions, array by array.

`control_plane.domain.analysis.comparison` decides one look at a time; this reads its constants and functions and does
the asymptotic interval in arrays. Betting is left to the product, for the few looks where it could decide at all.
`disagreements` holds a sample of looks against the product itself.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from control_plane.domain.analysis import comparison
from control_plane.domain.analysis import plan as plans
from control_plane.domain.analysis.comparison import Arm
from control_plane.domain.analysis.plan import Declared, Metric, OutcomeMetric, Resolved, Role
from control_plane.domain.experiments import betting, sequences, srm
from control_plane.domain.experiments.guardrails import Comparison
from control_plane.domain.experiments.samples import Mean

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
DECLARED = Declared({"bought": OutcomeMetric(), "spent": OutcomeMetric("amount")})
_BETS = 0.5 ** np.arange(1, 16)
_GRID = np.linspace(-12, 16, 4_001)  # of the logarithm of information
_SLACK = 0.3  # of what the product may find between the means that are looked at here


@dataclass(frozen=True)
class Looks:
    """One arm of many tests. Arrays of (tests, looks); `nonzero`: customers whose value is not 0."""

    count: Floats
    mean: Floats
    m2: Floats
    nonzero: Floats

    @classmethod
    def of_events(cls, events: Floats, count: Floats) -> "Looks":
        n = np.broadcast_to(count, events.shape).astype(float)
        share = events / n
        return cls(n, share, events * (1 - share), events.astype(float))

    @classmethod
    def of_sums(cls, sums: Floats, squares: Floats, count: Floats, nonzero: Floats) -> "Looks":
        n = np.broadcast_to(count, sums.shape).astype(float)
        return cls(n, sums / n, np.maximum(squares - sums**2 / n, 0), nonzero.astype(float))

    def arm(self, run: int, look: int) -> Arm:
        n, nonzero = int(self.count[run, look]), int(self.nonzero[run, look])
        return Arm(Mean(n, float(self.mean[run, look]), float(self.m2[run, look])), nonzero)


def goal(name: str, margin: float) -> Resolved:
    return plans.resolve(Metric(name, Role.GOAL, margin), DECLARED)


def differs(resolved: Resolved, candidate: Looks, baseline: Looks, *, alpha: float) -> Flags:
    """Whether a goal is called better or worse at each look, up to the first at which it is: none counts after it."""
    exact = comparison.exact_share(resolved)
    shares = (resolved.low, resolved.high) == (0.0, 1.0)
    arms = (candidate, baseline)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = sum((arm.m2 / (arm.count - 1) / arm.count for arm in arms), np.zeros(()))
        events = np.minimum(*(_events(arm, shares) for arm in arms))
        sd = np.sqrt(variance * candidate.count * baseline.count / (candidate.count + baseline.count))
        tau = np.clip(comparison.STANDARD_TAU * sd, resolved.margin, comparison.MOST_MARGINS * resolved.margin)
        start = np.minimum(variance * events / sequences.LEAST_EVENTS, tau**2 / comparison.GOAL_STARTS)
        asymptotic = (events >= sequences.LEAST_EVENTS) & (variance > 0) & (variance <= start)
        grown = tau**2 / variance
        level = _levels(tau**2 / start, asymptotic, alpha * (1 - exact))
        half = np.sqrt(2 * (variance + tau**2) / grown * (0.5 * np.log1p(grown) + level))
        found = asymptotic & (np.abs(candidate.mean - baseline.mean) > half)
    if exact:
        found |= _bets(candidate, baseline, ~asymptotic & ~_after(found), resolved, alpha * exact)
    return found & ~_after(found)


def first(found: Flags, units: Floats) -> tuple[Flags, Floats]:
    """Of each test: whether it was ever decided, and units per arm by then (the whole horizon if never)."""
    ever = np.asarray(found.any(axis=1))
    return ever, np.where(ever, units[found.argmax(axis=1)], units[-1])


def disagreements(
    resolved: Resolved, candidate: Looks, baseline: Looks, found: Flags, *, alpha: float, sample: int, seed: int
) -> tuple[int, int]:
    """Of looks drawn at random, half among those decided: how many the product decides otherwise; of how many."""
    rng = np.random.default_rng(seed)
    decided, open_ = np.argwhere(found), np.argwhere(~_after(found))
    others = rng.integers(0, len(open_), sample - min(len(decided), sample // 2))
    drawn = [tuple(map(int, open_[at])) for at in others]
    drawn += [tuple(map(int, decided[at])) for at in rng.integers(0, max(1, len(decided)), sample - len(drawn))]
    wrong = 0
    for run, look in drawn:
        said = comparison.compare(resolved, candidate.arm(run, look), baseline.arm(run, look), alpha=alpha).comparison
        wrong += (said in {Comparison.BETTER, Comparison.WORSE}) != bool(found[run, look])
    return wrong, len(drawn)


def log_mismatch(counts: Floats, shares: Floats) -> Floats:
    """`srm.check`'s evidence of one stage, with arms in the last axis, at each look."""
    prior = srm.CONCENTRATION * shares
    n = counts.sum(axis=-1)
    log_e = special.gammaln(srm.CONCENTRATION) - special.gammaln(srm.CONCENTRATION + n)
    log_e = log_e + (special.gammaln(prior + counts) - special.gammaln(prior) - counts * np.log(shares)).sum(axis=-1)
    return np.asarray(log_e)


def _after(found: Flags) -> Flags:
    """Looks after the first decision of their test."""
    before = np.zeros_like(found)
    before[:, 1:] = np.logical_or.accumulate(found, axis=1)[:, :-1]
    return before


def _events(arm: Looks, shares: bool) -> Floats:
    if not shares:
        return arm.nonzero
    events = np.rint(arm.count * arm.mean)
    return np.minimum(events, arm.count - events)


def _levels(information: Floats, where: Flags, alpha: float) -> Floats:
    """`sequences.log_level`, from a table that is exact to about 1e-7."""
    level = np.full(information.shape, np.inf)
    level[where] = np.interp(np.log(information[where]), _GRID, _table(alpha))
    return level


@cache
def _table(alpha: float) -> Floats:
    return np.array([sequences.log_level(float(np.exp(at)), alpha=alpha) for at in _GRID])


def _bets(candidate: Looks, baseline: Looks, where: Flags, resolved: Resolved, alpha: float) -> Flags:
    """Looks at which the product's betting interval excludes 0; what no bet at the pooled mean excludes, none does."""
    found = np.zeros(where.shape, dtype=bool)
    pooled = (candidate.mean * candidate.count + baseline.mean * baseline.count) / (candidate.count + baseline.count)
    most = np.full(where.shape, -np.inf)
    arms = [
        Looks(*(part[where] for part in (arm.count, arm.mean, arm.m2, arm.nonzero))) for arm in (candidate, baseline)
    ]
    most[where] = np.maximum(*(_capital(*pair, pooled[where], resolved.yes_no) for pair in (arms, arms[::-1])))
    bounds = betting.Bounds(resolved.low or 0.0, resolved.high or 1.0, yes_no=resolved.yes_no)
    for run, look in np.argwhere(most >= np.log(2 / alpha) - _SLACK):
        if found[run].any():
            continue
        sides = [side.arm(run, look).values for side in (candidate, baseline)]
        found[run, look] = betting.excludes(sides[0], sides[1], bounds, null=0.0, alpha=alpha)
    return found


def _capital(upper: Looks, lower: Looks, mean: Floats, yes_no: bool) -> Floats:
    """Log of the product of both bets against one common mean."""
    m = np.clip(mean, 1e-9, 1 - 1e-9)
    if yes_no:
        no = lower.count - lower.nonzero
        return _log_capital(upper.count, upper.nonzero, m) + _log_capital(lower.count, no, 1 - m)
    return _from_sums(upper.count, upper.mean, upper.m2, m) + _from_sums(lower.count, 1 - lower.mean, lower.m2, 1 - m)


def _from_sums(count: Floats, mean: Floats, m2: Floats, against: Floats) -> Floats:
    """The bound from count, mean and variance, the best over means between `against` and the arm's own."""
    best = np.full(count.shape, -np.inf)
    for part in np.linspace(0, 1, 9):
        m = against + part * np.maximum(0, mean - against)
        squares, total = (m2 + count * (mean - m) ** 2) / m**2, np.full(count.shape, -np.inf)
        for bet in _BETS:
            total = np.logaddexp(total, bet * count * (mean / m - 1) - (-np.log1p(-bet) - bet) * squares)
        best = np.maximum(best, total)
    return best - np.log(len(_BETS))


def _log_capital(count: Floats, events: Floats, m: Floats) -> Floats:
    total = np.full(count.shape, -np.inf)
    for bet in _BETS:
        each = events * np.log1p(bet * (1 / m - 1)) + (count - events) * np.log1p(-bet)
        total = np.logaddexp(total, each)
    return total - np.log(len(_BETS))
