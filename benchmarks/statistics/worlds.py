"""Simulated tests, in sums per look: arms without any difference, whose every decision is a false alarm."""

from collections.abc import Callable

import numpy as np

from benchmarks.statistics.vector import Floats, Looks

Arms = tuple[list[Looks], Floats]  # the arms, baseline last; customers per arm at each look
World = Callable[[np.random.Generator, int, int], Arms]  # generator, tests, looks


def conversion(share: float, units: int, arms: int = 2) -> World:
    """Yes/no per customer; `units` per arm in the end."""

    def made(rng: np.random.Generator, tests: int, looks: int) -> Arms:
        count = _grown(np.full(looks, units / looks))
        steps = np.diff(count, prepend=0).astype(int)
        events = [rng.binomial(steps, share, (tests, looks)).cumsum(axis=1) for _ in range(arms)]
        return [Looks.of_events(of, count) for of in events], count

    return made


def amounts(buyers: float, units: int) -> World:
    """Most customers spend nothing, the others a log-normal amount (sigma 1): no bounds."""

    def made(rng: np.random.Generator, tests: int, looks: int) -> Arms:
        count = _grown(np.full(looks, units / looks))
        arms = [
            _spent(rng, rng.binomial(np.diff(count, prepend=0).astype(int), buyers, (tests, looks)), count)
            for _ in "ab"
        ]
        return arms, count

    return made


def clustered(units: int) -> World:
    """Customers with 1 to 8 predictions and an error rate of their own; the value is their share of wrong ones."""
    values: dict[float, float] = {}
    for rate, weight in ((0.02, 0.5), (0.1, 0.3), (0.4, 0.2)):
        for m in range(1, 9):
            for wrong in range(m + 1):
                chance = weight / 8 * float(_choose(m, wrong)) * rate**wrong * (1 - rate) ** (m - wrong)
                values[wrong / m] = values.get(wrong / m, 0.0) + chance
    value = np.array(sorted(values))
    chances = np.array([values[at] for at in value])

    def made(rng: np.random.Generator, tests: int, looks: int) -> Arms:
        count = _grown(np.full(looks, units / looks))
        steps = np.diff(count, prepend=0).astype(int)
        arms: list[Looks] = []
        for _ in "ab":
            drawn = rng.multinomial(steps, chances / chances.sum(), (tests, looks)).cumsum(axis=1)
            arms.append(Looks.of_sums(drawn @ value, drawn @ value**2, count, drawn[..., value > 0].sum(axis=-1)))
        return arms, count

    return made


def delayed(share: float, units: int) -> World:
    """Outcomes take an exponential time, on average the window: 63 % are there when a customer closes.

    Customers close a fifth of the run after they came."""

    def made(rng: np.random.Generator, tests: int, looks: int) -> Arms:
        came = np.full(looks, units / looks)
        closed = np.concatenate([np.zeros(looks // 5), came])[:looks]
        count = _grown(closed)
        steps, there = np.diff(count, prepend=0).astype(int), share * (1 - np.exp(-1))
        events = [rng.binomial(steps, there, (tests, looks)).cumsum(axis=1) for _ in "ab"]
        begun = looks // 5
        return [Looks.of_events(of[:, begun:], count[begun:]) for of in events], count[begun:]

    return made


def ramp(share: float, units: int) -> World:
    """1, 5, 10, 25, 50 % for a fifth of the time each, slices of one size; the rate itself moves from step to step."""

    def made(rng: np.random.Generator, tests: int, looks: int) -> Arms:
        step = np.arange(looks) * 5 // looks
        weight = np.array([1, 5, 10, 25, 50])[step]
        count = _grown(units * weight / weight.sum())
        rate = share * np.array([1.0, 1.4, 0.8, 1.2, 1.0])[step]
        steps = np.diff(count, prepend=0).astype(int)
        events = [rng.binomial(steps, rate, (tests, looks)).cumsum(axis=1) for _ in "ab"]
        return [Looks.of_events(of, count) for of in events], count

    return made


def _grown(each: Floats) -> Floats:
    return np.asarray(np.maximum(1, np.rint(each.cumsum())))


def _choose(n: int, k: int) -> int:
    made = 1
    for at in range(k):
        made = made * (n - at) // (at + 1)
    return made


def _spent(rng: np.random.Generator, buyers: Floats, count: Floats) -> Looks:
    flat = buyers.ravel()
    ends = np.concatenate([[0], flat.cumsum()])
    spent = rng.lognormal(3.0, 1.0, int(ends[-1]))
    sums = [np.diff(np.concatenate([[0.0], values.cumsum()])[ends]) for values in (spent, spent**2)]
    total, squares = (part.reshape(buyers.shape).cumsum(axis=1) for part in sums)
    return Looks.of_sums(total, squares, count, buyers.cumsum(axis=1))
