"""Card payments with moving fraud and a known truth: `truth` is the probability each payment is fraudulent with.

After the generator of the Fraud Detection Handbook (Le Borgne et al. 2022, chapter 3): customers with their own habits
pay at terminals near them; fraud comes as large amounts, as terminals compromised for 28 days, and as customers whose
card is used by somebody else for 14 days.
"""

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

DAYS = 120
START = np.datetime64("2026-01-01T00:00:00", "s")
_DAY = 86_400
_TERMINALS_EACH = 12  # within a customer's reach


def simulate(rows: int, rng: Generator, *, scenario: str = "stable") -> pd.DataFrame:
    """`rows` payments over 120 days in time order.

    stable   the world the model is trained on
    drifted  a third more spent per payment, and more of it at night: inputs move, what fraud looks like does not
    better   compromised terminals and cards are used without restraint: fraud is easier to see
    worse    large amounts are no longer fraud; small ones at night are: what was learnt no longer holds
    """
    customers = max(20, rows // 110)
    terminals = max(40, customers // 3)
    drifted = scenario == "drifted"

    activity = rng.gamma(3.0, 1.0, customers)
    customer = rng.choice(customers, rows, p=activity / activity.sum())
    mean = rng.uniform(5, 100, customers) * (1.35 if drifted else 1.0)
    reach = rng.integers(0, terminals, (customers, _TERMINALS_EACH))
    terminal = reach[customer, rng.integers(0, _TERMINALS_EACH, rows)]
    day = rng.integers(0, DAYS, rows)
    noon = np.clip(rng.normal(43_200, 20_000, rows), 0, _DAY - 1)
    shifted = rng.random(rows) < (0.25 if drifted else 0.03)  # at any hour
    second = np.where(shifted, rng.uniform(0, _DAY, rows), noon).astype(np.int64)
    amount = np.abs(rng.normal(mean[customer], mean[customer] / 2)).clip(0.5)

    strength = 1.0 if scenario == "better" else 0.9
    at_terminal = _within(rng, terminal, day, count=terminals, share=0.05, lasts=28)
    by_customer = _within(rng, customer, day, count=customers, share=0.06, lasts=14)
    stolen = by_customer & (rng.random(rows) < 1 / 3)
    amount = np.round(np.where(stolen, amount * 5, amount), 2)
    truth = np.full(rows, 0.0003)
    if scenario == "worse":
        truth = np.where((amount < 15) & (second < 7 * 3_600), 0.5, truth)
    else:
        truth = np.where(amount > 220, 0.85, truth)
    truth = np.maximum(truth, np.where(at_terminal | stolen, strength, 0.0))

    when = day * _DAY + second
    order = np.argsort(when, kind="stable")
    return pd.DataFrame(
        {
            "transaction_id": np.arange(rows),
            "event_time": (START + when[order].astype("timedelta64[s]")).astype("datetime64[ms]"),
            "customer_id": customer[order],
            "terminal_id": terminal[order],
            "amount": amount[order],
            "fraud": (rng.random(rows) < truth[order]).astype(np.int8),
            "truth": truth[order],
        }
    )


def _within(
    rng: Generator, who: NDArray[np.int64], day: NDArray[np.int64], *, count: int, share: float, lasts: int
) -> NDArray[np.bool_]:
    """Whether the payment falls into a bad spell of `who`: `share` of all have one, of `lasts` days, at some time."""
    start = np.where(rng.random(count) < share, rng.integers(-lasts // 2, DAYS, count), 10 * DAYS)[who]
    return (start <= day) & (day < start + lasts)
