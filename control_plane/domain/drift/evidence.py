"""Evidence of drift that may be looked at every hour for months: what an alarm is made of.

Counts here are blocks, not rows: one row per (customer, day), the first one, since the same customer every hour is not
new evidence. The ingest folds those rows into a profile of their own; its cell counts are all this module needs, so
days merge and memory is constant.

1. A feature's cells get scores, standardised on the reference (mean 0, variance at most 1): `location` and `spread` of
   a number, `popularity` and the largest shares of a category, `absent`, `outside` / `unseen`. A day measures the
   mean score of its blocks. A location of 0.25 is a shift by a quarter of a standard deviation, a PSI of about 0.06.
2. Days differ without drift. `baseline` learns each score's centre (per season, e.g. the weekday) and the standard
   deviation between days from reference days; H0 is "the centre moved by at most delta = threshold + z * the centre's
   own standard error", the reference's sampling radius.
3. Under H0 a day's mean over n blocks is about normal around a centre within delta, with variance
   v = day_sd^2 + variance / n. Betting on an excess t beyond delta pays exp(t x / v - t^2 / (2 v)), x the measured
   excess; its expectation is at most 1, at any time of the day. Payoffs of days multiply; stakes are spread over t,
   both directions, all scores of a feature, and over the day the drift begins: 1 / horizon of a stake is added daily.
4. The average of all stakes is the evidence of the model, `e`. P(e ever reaches 1 / alpha within D days) <=
   alpha * D / horizon: at most alpha false alarms per model and horizon, over all features and scores together.

Asymptotic: it leans on means of at least `least_blocks` blocks being normal and on days varying like the reference's.
Source: e-values and their average: Vovk & Wang (2021); stakes started anew: Shin, Ramdas, Rinaldo, "E-detectors"
(2024), arXiv:2203.03532, sec. 3; the supremum: Ville (1939).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import special

from control_plane.domain.drift.profiles import Categorical, Feature, Numeric, Profile, Text

Floats = NDArray[np.float64]
_EXCESSES: Floats = np.array([0.08, 0.16, 0.32])  # t, in standard deviations of the feature
_MAIN = 0.7  # share of a feature's stake on its first score, `location` or `popularity`; the others share the rest
_LEAST_SCALE = 0.1  # a share is measured in units of its standard deviation, of one percent at least
_LEAST_VARIANCE = 0.5  # of one block: a score that did not vary today may tomorrow
_NAMED = 6  # categories with a score of their own
_FLOOR = 1e300  # finite, so that -inf minus it is -inf


@dataclass(frozen=True, slots=True)
class Settings:
    """`alpha`: false alarms per model in `horizon_days`. `threshold`: shift that does not matter, in standard
    deviations (its square is about a PSI). `radius_z`: standard errors of the reference in delta. `least_day_sd`: days
    are never taken for more alike than this; `prior_day_sd`: how much they are taken to differ before enough are known.
    """

    alpha: float = 0.01
    horizon_days: int = 90
    threshold: float = 0.05
    radius_z: float = 1.0
    least_day_sd: float = 0.01
    prior_day_sd: float = 0.1
    least_blocks: int = 50

    def __post_init__(self) -> None:
        positive = min(self.horizon_days, self.threshold, self.radius_z, self.least_day_sd, self.least_blocks) > 0
        if not (positive and 0 < self.alpha < 1):
            raise ValueError(f"settings must be positive, alpha within 0..1: {self}")


@dataclass(frozen=True, slots=True)
class Scores:
    """What is measured: per feature a matrix (scores x cells). `names`: (feature, score) in order of all arrays.

    `log_weights`: log of each score's share of its feature's stake. `starts`: where each feature's scores begin, which
    adjoin; a feature without any value in the reference has none.
    """

    names: tuple[tuple[str, str], ...]
    matrices: Mapping[str, Floats]
    log_weights: Floats
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Day:
    """Measured so far today, one entry per score: number of blocks, mean and variance of a block's score."""

    blocks: Floats
    mean: Floats
    variance: Floats


@dataclass(frozen=True, slots=True)
class Baseline:
    """From reference days. `centre`, `error`: per season (rows) and score; `day_sd`: per score, an upper 80 % limit."""

    seasons: tuple[int, ...]
    centre: Floats
    error: Floats  # standard error of the centre
    day_sd: Floats


@dataclass(frozen=True, slots=True)
class State:
    """Log of every stake after `days` closed days: scores x 2 directions (more, less) x excesses."""

    log_stakes: Floats
    days: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """One look. `alarm`: e of the model reached 1 / alpha. `features`: log e of each, by which they are ranked."""

    log_e: float
    alarm: bool
    features: Mapping[str, float]
    strongest: tuple[str, str]  # feature and score
    why: str


def scores_of(reference: Profile) -> Scores:
    """The scores of every feature that has values in the reference. Text is measured by its length and absence."""
    names: list[tuple[str, str]] = []
    starts: list[int] = []
    matrices: dict[str, Floats] = {}
    weights: list[float] = []
    for name, feature in reference.features.items():
        rows = _score_rows(feature)
        starts += [len(names)] if rows else []
        names += [(name, score) for score in rows]
        weights += [_MAIN, *[(1 - _MAIN) / (len(rows) - 1)] * (len(rows) - 1)] if rows else []
        matrices[name] = np.array(list(rows.values())).reshape(len(rows), len(_cells(feature)))
    return Scores(tuple(names), matrices, np.log(weights), tuple(starts))


def measure(scores: Scores, blocks: Profile) -> Day:
    """A day (or its part so far) from the profile of its blocks, folded on the reference.

    Raises ValueError if the profile's features or cells are not the reference's.
    """
    parts: list[tuple[Floats, Floats, Floats]] = []
    for name, matrix in scores.matrices.items():
        cells = _cells(blocks.features[name]) if name in blocks.features else np.zeros(0)
        if len(cells) != matrix.shape[1]:
            raise ValueError(f"{name}: {len(cells)} cells, the reference has {matrix.shape[1]}")
        n = float(cells.sum())
        share = cells / max(1.0, n)
        first = matrix @ share
        parts.append((np.full(len(first), n), first, np.maximum(0.0, (matrix**2) @ share - first**2)))
    if not parts:
        raise ValueError("no feature to measure")
    return Day(*(np.concatenate([part[i] for part in parts]) for i in range(3)))


def baseline(days: Sequence[Day], seasons: Sequence[int], settings: Settings) -> Baseline:
    """What is usual, from reference days; `seasons[i]`: the season of day i, any small numbers (all 0: none).

    Days may be stacked: with arrays of (hours, scores) the baseline has a centre per season, hour and score.

    Raises ValueError with too few days: each season needs two, and there must be eight more days than seasons.
    """
    if len(days) != len(seasons):
        raise ValueError(f"{len(days)} days, {len(seasons)} seasons")
    known = tuple(sorted(set(seasons)))
    dof = len(days) - len(known)
    if dof < 8 or min(seasons.count(season) for season in known) < 2:
        raise ValueError(
            f"{len(days)} reference days for {len(known)} seasons: needs 2 of each and 8 more than seasons"
        )
    means = np.stack([day.mean for day in days])
    noise = np.stack([_block_variance(day) for day in days]).mean(axis=0)
    rows = [[i for i, season in enumerate(seasons) if season == one] for one in known]
    centre = np.stack([means[at].mean(axis=0) for at in rows])
    residual = sum(((means[at] - centre[i]) ** 2).sum(axis=0) for i, at in enumerate(rows))
    # An upper limit: days taken for more alike than they are would raise false alarms.
    upper = np.asarray(residual) / float(special.chdtri(dof, 0.8))
    day_sd = np.sqrt(np.maximum(settings.least_day_sd**2, upper - noise))
    sizes = np.array([len(at) for at in rows], dtype=np.float64).reshape(-1, *[1] * noise.ndim)
    return Baseline(known, centre, np.sqrt((day_sd**2 + noise) / sizes), day_sd)


def prior(scores: Scores, reference: Profile, settings: Settings) -> Baseline:
    """What is usual before any day is known: the reference's own rows, and days that differ by `prior_day_sd`.

    Of values new to it a window has what the reference makes expect (as in `decide.py`).
    """
    usual = measure(scores, replace(reference, features={n: _expected(f) for n, f in reference.features.items()}))
    error = np.sqrt(_block_variance(usual))[None, :]
    return Baseline((0,), usual.mean[None, :], error, np.full(len(usual.mean), settings.prior_day_sd))


def standing(scores: Scores, state: State, settings: Settings) -> Evidence:
    """The evidence of the closed days alone."""
    return _read(scores, state.log_stakes, state.days, settings)


def is_calm(
    scores: Scores, day: Day, usual: Baseline, features: Collection[str], *, season: int, settings: Settings
) -> bool:
    """Whether a day with enough blocks shows none of these features further out than noise and threshold explain."""
    excess, v = _excess(day, usual, season, settings)
    mine = np.array([feature in features for feature, _ in scores.names])
    enough = day.blocks[mine].min(initial=np.inf) >= settings.least_blocks
    return bool(enough and (excess.max(axis=1) <= np.sqrt(v))[mine].all())


def start(scores: Scores) -> State:
    return State(np.full((len(scores.names), 2, len(_EXCESSES)), -np.inf))


def look(scores: Scores, state: State, today: Day, usual: Baseline, *, season: int, settings: Settings) -> Evidence:
    """The evidence now, with today's blocks so far. Looking changes nothing; `close` does, once a day."""
    return _read(scores, _staked(state, today, usual, season, settings), state.days + 1, settings)


def heights(scores: Scores, state: State, looks: Day, usual: Baseline, *, season: int, settings: Settings) -> Floats:
    """`log_e` of many looks at one state, as `look` says it of each: arrays of (looks, scores), as are usual days."""
    staked = _staked(state, looks, usual, season, settings)
    return _model(scores, _weighted(scores, staked))[1]


def close(state: State, day: Day, usual: Baseline, *, season: int, settings: Settings) -> State:
    """The state after a day whose last block has been counted."""
    return State(_staked(state, day, usual, season, settings), state.days + 1)


def _staked(state: State, day: Day, usual: Baseline, season: int, settings: Settings) -> Floats:
    beyond, variance = _excess(day, usual, season, settings)
    excess, v = beyond[..., None], variance[..., None, None]
    payoff = _EXCESSES * excess / v - _EXCESSES**2 / (2 * v)
    payoff = np.where((day.blocks >= settings.least_blocks)[..., None, None], payoff, 0.0)  # too few: no bet today
    return np.logaddexp(state.log_stakes, -math.log(settings.horizon_days)) + payoff


def _excess(day: Day, usual: Baseline, season: int, settings: Settings) -> tuple[Floats, Floats]:
    """How far beyond delta, per score in both directions, and the variance of that under H0."""
    if season not in usual.seasons:
        raise ValueError(f"season {season} was not among the reference days: {usual.seasons}")
    at = usual.seasons.index(season)
    delta = settings.threshold + settings.radius_z * usual.error[at]
    shift = day.mean - usual.centre[at]
    return np.stack([shift - delta, -shift - delta], axis=-1), usual.day_sd**2 + _block_variance(day)


def _read(scores: Scores, log_stakes: Floats, days: int, settings: Settings) -> Evidence:
    if not scores.names:
        raise ValueError("no feature to look at")
    weighted = _weighted(scores, log_stakes)
    per_feature, of_model = _model(scores, weighted)
    log_e = float(of_model)
    owners = [scores.names[start][0] for start in scores.starts]
    ordered = dict(sorted(zip(owners, per_feature.tolist(), strict=True), key=_by_evidence))
    alarm = log_e >= -math.log(settings.alpha)
    strongest = scores.names[int(np.argmax(weighted))]
    found = "drift" if alarm else "no drift shown"
    why = f"{found}: evidence {math.exp(min(700.0, log_e)):.3g} of {1 / settings.alpha:.0f} needed after {days} days; "
    return Evidence(log_e, alarm, ordered, strongest, f"{why}most from {strongest[0]} ({strongest[1]}).")


def _weighted(scores: Scores, log_stakes: Floats) -> Floats:
    """Log of each score's mean stake times its share; any axes before (scores, directions, excesses)."""
    flat = log_stakes.reshape(*log_stakes.shape[:-2], -1)
    return _log_sum(flat) - math.log(2 * len(_EXCESSES)) + scores.log_weights


def _model(scores: Scores, weighted: Floats) -> tuple[Floats, Floats]:
    """Log e of each feature and of the model."""
    per_feature = np.logaddexp.reduceat(weighted, scores.starts, axis=-1)
    return per_feature, _log_sum(per_feature) - math.log(per_feature.shape[-1])


def _by_evidence(feature: tuple[str, float]) -> float:
    return -feature[1]


def _log_sum(logs: Floats) -> Floats:
    """Log of the sum of exp over the last axis; of nothing but -inf it is -inf. A tenth of logaddexp.reduce's time."""
    top = np.maximum(logs.max(axis=-1), -_FLOOR)
    with np.errstate(divide="ignore"):
        return cast(Floats, np.log(np.exp(logs - top[..., None]).sum(axis=-1)) + top)


def _block_variance(day: Day) -> Floats:
    """Variance of the day's mean from its blocks alone."""
    return np.maximum(day.variance, _LEAST_VARIANCE) / np.maximum(1.0, day.blocks)


def _expected(feature: Feature) -> Feature:
    """The reference with the values a window is expected to have that it has not."""
    if isinstance(feature, Text):
        return Text(feature.words, cast(Numeric, _expected(feature.length)))
    if isinstance(feature, Categorical):
        return replace(feature, unseen=feature.unseen + feature.once)
    ends = [max(1, feature.counts[0]), *feature.counts[1:-1], max(1, feature.counts[-1])]
    return replace(feature, counts=tuple(ends)) if len(feature.counts) > 1 else feature


def _cells(feature: Feature) -> Floats:
    counted = feature.length if isinstance(feature, Text) else feature
    return np.array([*counted.counts, feature.absent.total], dtype=np.float64)


def _score_rows(feature: Feature) -> dict[str, Floats]:
    """Scores per cell; the rarely telling ones are few, since every score shares the stake."""
    counted = feature.length if isinstance(feature, Text) else feature
    cells = _cells(feature)
    total = cells.sum()
    if total - cells[-1] <= 0:
        return {}
    share = cells / total
    absent = np.eye(len(cells))[-1]
    present = 1 - absent
    if isinstance(counted, Numeric):
        rank = _middle_rank(share[:-1])
        outside = np.zeros(len(cells))
        outside[[0, -2]] = 1.0
        raw = {"location": rank, "spread": (rank - 0.5) ** 2}
        smooth = {name: _standard(values, share, present) for name, values in raw.items()}
        return smooth | {"outside": _share(outside, share), "absent": _share(absent, share)}
    if len(counted.categories) <= 2 and not counted.other:  # yes or no: one share says it all
        first = np.zeros(len(cells))
        first[0] = 1.0
        return {next(iter(counted.categories), "unseen"): _share(first, share), "absent": _share(absent, share)}
    return _category_rows(counted, cells, share, present) | {"absent": _share(absent, share)}


def _category_rows(feature: Categorical, cells: Floats, share: Floats, present: Floats) -> dict[str, Floats]:
    order = np.argsort(-share[:-1], kind="stable")
    rank = np.empty(len(order))
    rank[order] = _middle_rank(share[:-1][order])[:-1]
    rows = {"popularity": _standard(np.append(rank, 0.0), share, present)}
    named = sorted(range(len(feature.categories)), key=lambda i: (-cells[i], i))[:_NAMED]
    labels = list(feature.categories)
    for i in named:
        rows[labels[i]] = _share(np.eye(len(cells))[i], share)
    return rows | {"unseen": _share(np.eye(len(cells))[-2], share)}


def _middle_rank(share: Floats) -> Floats:
    """Share below a cell plus half its own, of the values present; the absent cell is appended at 0."""
    inside = share / share.sum()
    return np.append(np.cumsum(inside) - inside / 2, 0.0)


def _standard(values: Floats, share: Floats, present: Floats) -> Floats:
    """Mean 0 and variance 1 over the reference's present cells; absent rows score 0, they say nothing of the rest."""
    inside = share * present / (share * present).sum()
    centred = (values - values @ inside) * present
    sd = math.sqrt(float(centred**2 @ inside))
    return centred / sd if sd > 0 else np.zeros(len(values))


def _share(indicator: Floats, share: Floats) -> Floats:
    usual = float(indicator @ share)
    return (indicator - usual) / max(_LEAST_SCALE, math.sqrt(usual * (1 - usual)))
