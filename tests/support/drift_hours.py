"""A model's traffic by the hour, at the level of counts: what thousands of simulated models are looked at with.

Customers of two kinds, light and heavy, ask at random times of a day with a night; the first answer of each is a block.
A feature's place moves with the weekday, the hour, the day and the kind of customer. Kinds are Poisson many, so the
blocks of an hour are Poisson many and each of them is of either kind at random: given their number, a feature's
cells are multinomial. So every feature's counts have exactly the distribution that rows folded one by one have
(`rows_of` makes those); what a row's features have in common beyond season, hour and day is left out.
Places are multiples of STEP, so that a table has all cells there can be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.drift import fold
from control_plane.domain.drift.evidence import Day, Scores
from tests.support import drift_streams as streams
from tests.support.drift_streams import CATEGORIES, EDGES, LEVELS, NUMBERS, Floats

HOURS = 24
FEATURES = NUMBERS + CATEGORIES
STEP, _REACH = 0.002, 1_000  # places from -2 to 2 standard deviations
_KINDS = np.array([0.9, 0.1])  # of the customers
_RATES = np.array([1.0, 11.0])  # answers a day of one customer of the kind
_DAY = 1 + 0.9 * np.sin(2 * np.pi * (np.arange(HOURS) - 8) / HOURS)
_UNTIL = np.cumsum(_DAY / _DAY.sum())  # share of a customer's answers up to the end of an hour
NAMES = tuple([f"x{i}" for i in range(NUMBERS)] + [f"c{i}" for i in range(CATEGORIES)])
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """`rows` a day. `season`, `clock`, `day_sd`, `kind`: how far weekday, hour, day and kind of customer move a
    feature, in its standard deviations. `shift` is added to the first `shifted` numbers.
    """

    rows: int
    season: float = 0.1
    clock: float = 0.1
    day_sd: float = 0.02
    kind: float = 0.3
    shift: float = 0.0
    shifted: int = 0

    @property
    def customers(self) -> float:
        """On average; two answers a day each."""
        return self.rows / float(_KINDS @ _RATES)


def places(traffic: Traffic, rng: np.random.Generator, day: int) -> Places:
    """Where features are on this day, in STEPs: (hours, kinds, features)."""
    at = np.arange(FEATURES)
    week = traffic.season * np.sin(2 * np.pi * (day + at) / 7)
    clock = traffic.clock * np.sin(2 * np.pi * (np.arange(HOURS)[:, None] + at) / HOURS)
    kind = traffic.kind * np.array([-0.1, 0.9])[:, None] * np.where(at % 2, 1, -1)  # none on average
    moved = week + rng.normal(0, traffic.day_sd, FEATURES)
    moved[: traffic.shifted] += traffic.shift
    return np.rint((moved + clock[:, None, :] + kind) / STEP).astype(np.int64)


def first_answers(traffic: Traffic) -> Floats:
    """Expected number of customers of each kind with their first answer of the day in each hour: (hours, kinds)."""
    unheard = np.exp(-np.outer(np.concatenate([[0.0], _UNTIL]), _RATES))
    return traffic.customers * _KINDS * -np.diff(unheard, axis=0)


def measured(scores: Scores, traffic: Traffic, rng: np.random.Generator, day: int) -> Day:
    """A day up to the end of each of its hours, arrays of (hours, scores)."""
    numbers, categories = counts(traffic, rng, day)
    x, c = (
        streams.measured(scores.matrices[name], cells.cumsum(axis=0))
        for name, cells in (("x0", numbers), ("c0", categories))
    )
    blocks = np.repeat(numbers[:, 0].sum(axis=1).cumsum()[:, None], len(scores.names), axis=1).astype(np.float64)
    mean, variance = (np.concatenate([x[i].reshape(HOURS, -1), c[i].reshape(HOURS, -1)], axis=1) for i in (0, 1))
    return Day(blocks, mean, variance)


def counts(traffic: Traffic, rng: np.random.Generator, day: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Blocks of each hour per cell, of the numbers and of the categories: (hours, features, cells)."""
    where, expected = places(traffic, rng, day), first_answers(traffic)
    many = rng.poisson(expected.sum(axis=1))
    of_kind = (expected / expected.sum(axis=1, keepdims=True))[:, :, None, None]
    found: list[NDArray[np.int64]] = []
    for table, mine in zip(_tables(), (slice(0, NUMBERS), slice(NUMBERS, None)), strict=True):
        shares = (of_kind * table[where[:, :, mine] + _REACH]).sum(axis=1)
        found.append(rng.multinomial(many[:, None], shares))
    return found[0], found[1]


def rows_of(
    traffic: Traffic, rng: np.random.Generator, day: int, names: Sequence[str] = NAMES
) -> list[dict[str, fold.Column]]:
    """The same day row by row: the first answer of each customer, by hour, as columns that `fold` takes.

    Odd numbers are skewed: exp of a normal one, on edges that are exp of the normal ones.
    """
    where = places(traffic, rng, day)
    kinds = np.repeat([0, 1], rng.poisson(traffic.customers * _KINDS))
    asked = np.repeat(np.arange(len(kinds)), rng.poisson(_RATES[kinds]))  # whose each answer is
    first = np.full(len(kinds), HOURS)
    np.minimum.at(first, asked, np.searchsorted(_UNTIL, rng.random(len(asked))))
    found: list[dict[str, fold.Column]] = []
    for hour in range(HOURS):
        mine = kinds[first == hour]
        made: dict[str, fold.Column] = {}
        for name in names:
            at = NAMES.index(name)
            place = where[hour, mine, at] * STEP
            if at < NUMBERS:
                values = rng.normal(place, 1)
                made[name] = np.where(rng.random(len(mine)) < 0.01, np.nan, np.exp(values) if at % 2 else values)
            else:
                made[name] = [f"m{level}" for level in _levels(place, rng)]
        found.append(made)
    return found


def skewed_edges() -> tuple[float, ...]:
    return tuple(np.exp(EDGES).tolist())


def _levels(place: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    found = np.zeros(len(place), dtype=np.int64)
    for one in np.unique(place):
        mine = place == one
        found[mine] = np.searchsorted(_up_to(float(one)), rng.random(int(mine.sum())))
    return np.minimum(found, len(LEVELS) - 1)


@lru_cache(maxsize=512)
def _up_to(place: float) -> Floats:
    return np.cumsum(streams.tilted(np.array([place]))[0])


@lru_cache(maxsize=1)
def _tables() -> tuple[Floats, Floats]:
    """Cells of a number and of a category at every place."""
    every = np.arange(-_REACH, _REACH + 1) * STEP
    categories = np.concatenate([streams.category_cells(part) for part in np.array_split(every, 50)])
    return streams.number_cells(every), categories
