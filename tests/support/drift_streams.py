"""Simulated traffic of a model of 30 features, at the level of daily cell counts: what the tests of evidence look at.

20 numbers (normal or, which is the same on quantile cells, skewed) and 10 categories of 10,000 levels. Every feature
has a weekly season and an effect of the day; blocks of one day are independent given it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from control_plane.domain.drift import evidence, sketches
from control_plane.domain.drift.evidence import Baseline, Day, Scores, Settings
from control_plane.domain.drift.profiles import Absent, Categorical, Numeric, Profile
from control_plane.domain.model_config import FeatureType

Floats = NDArray[np.float64]
NUMBERS, CATEGORIES, BINS = 20, 10, 16
EDGES = stats.norm.ppf(np.linspace(1e-5, 1 - 1e-5, BINS + 1))
LEVELS = 1 / (np.arange(10_000) + 10.0)
_BUCKETS = np.array([sketches.hash64(f"m{i}") % 16 for i in range(64, 10_000)])


@dataclass(frozen=True, slots=True)
class Stream:
    """`season`, `day_sd`: in standard deviations of a feature. `shift` is added to `shifted` numbers."""

    season: float = 0.1
    day_sd: float = 0.02
    shift: float = 0.0
    shifted: int = 0


def reference() -> Profile:
    """As the training pipeline would have written it, from a million rows."""
    numbers = np.round(number_cells(np.zeros(1))[0] * 1e6).astype(int)
    shares = np.round(category_cells(np.zeros(1))[0] * 1e6).astype(int)
    named = {f"m{i}": int(shares[i]) for i in range(64)}
    features: dict[str, Numeric | Categorical] = {
        f"x{i}": Numeric(
            FeatureType.NUMBER, tuple(EDGES.tolist()), tuple(numbers[:-1].tolist()), Absent(int(numbers[-1]))
        )
        for i in range(NUMBERS)
    }
    features |= {
        f"c{i}": Categorical(FeatureType.CATEGORY, named, tuple(shares[64:80].tolist())) for i in range(CATEGORIES)
    }
    return Profile(1_000_000, features)


def days(
    scores: Scores, stream: Stream, rng: np.random.Generator, *, first: int, count: int, looks: int, blocks: int
) -> list[list[Day]]:
    """`count` days, each as `looks` growing parts of it, ending with all `blocks`."""
    per_look = blocks // looks
    out: list[list[Day]] = []
    for day in range(first, first + count):
        wave = stream.season * np.sin(2 * np.pi * (day + np.arange(NUMBERS + CATEGORIES)) / 7)
        moved = wave + rng.normal(0, stream.day_sd, NUMBERS + CATEGORIES)
        moved[: stream.shifted] += stream.shift
        numbers = rng.multinomial(per_look, number_cells(moved[:NUMBERS]), (looks, NUMBERS)).cumsum(axis=0)
        categories = rng.multinomial(per_look, category_cells(moved[NUMBERS:]), (looks, CATEGORIES)).cumsum(axis=0)
        x, c = (measured(scores.matrices[name], cells) for name, cells in (("x0", numbers), ("c0", categories)))
        out.append(
            [
                Day(
                    np.full(len(scores.names), float(per_look * (i + 1))),
                    np.concatenate([x[0][i].ravel(), c[0][i].ravel()]),
                    np.concatenate([x[1][i].ravel(), c[1][i].ravel()]),
                )
                for i in range(looks)
            ]
        )
    return out


def usual(
    scores: Scores, stream: Stream, rng: np.random.Generator, *, count: int, blocks: int, s: Settings
) -> Baseline:
    calm = Stream(stream.season, stream.day_sd)
    closed = [parts[-1] for parts in days(scores, calm, rng, first=0, count=count, looks=1, blocks=blocks)]
    return evidence.baseline(closed, [day % 7 for day in range(count)], s)


def first_alarm(
    scores: Scores, stream: Stream, rng: np.random.Generator, *, count: int, looks: int, blocks: int, s: Settings
) -> tuple[float, tuple[str, ...]] | None:
    """Days until the first alarm, and the features that carried most of it; None if `count` days bring none."""
    normal = usual(scores, stream, rng, count=56, blocks=blocks, s=s)
    state = evidence.start(scores)
    for day in range(count):
        (parts,) = days(scores, stream, rng, first=56 + day, count=1, looks=looks, blocks=blocks)
        for i, part in enumerate(parts):
            seen = evidence.look(scores, state, part, normal, season=(56 + day) % 7, settings=s)
            if seen.alarm:
                return day + (i + 1) / looks, tuple(seen.features)[:3]
        state = evidence.close(state, parts[-1], normal, season=(56 + day) % 7, settings=s)
    return None


def measured(matrix: Floats, cells: Floats) -> tuple[Floats, Floats]:
    """As `evidence.measure`, for (looks, features, cells) at once."""
    share = cells / np.maximum(1.0, cells.sum(axis=-1, keepdims=True))  # an hour may have no rows yet
    mean = share @ matrix.T
    return mean, np.maximum(0.0, share @ (matrix**2).T - mean**2)


def number_cells(shift: Floats) -> Floats:
    below = stats.norm.cdf(EDGES[None, :] - shift[:, None])
    inside = np.diff(np.concatenate([np.zeros((len(shift), 1)), below, np.ones((len(shift), 1))], axis=1), axis=1)
    return np.concatenate([inside * 0.99, np.full((len(shift), 1), 0.01)], axis=1)  # one percent is absent


def category_cells(shift: Floats) -> Floats:
    """Named levels, the others by hash as `fold` counts them, none unseen and none absent."""
    levels = tilted(shift)
    buckets = np.stack([levels[:, 64:][:, i == _BUCKETS].sum(axis=1) for i in range(16)], axis=1)
    return np.concatenate([levels[:, :64], buckets, np.zeros((len(shift), 2))], axis=1)


def tilted(shift: Floats) -> Floats:
    """Popular levels grow with the shift: share * exp(shift * z), z the standardised log share."""
    z = np.log(LEVELS)
    usual_share = LEVELS / LEVELS.sum()
    z = (z - z @ usual_share) / np.sqrt(usual_share @ (z - z @ usual_share) ** 2)
    shares = usual_share[None, :] * np.exp(shift[:, None] * z[None, :])
    return shares / shares.sum(axis=1, keepdims=True)
