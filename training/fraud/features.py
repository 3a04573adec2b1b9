"""Card payments -> final features: what is known about customer and terminal at the moment of payment.

After the Fraud Detection Handbook (Le Borgne et al. 2022, chapter 3): spending of the customer over 1, 7 and 30 days,
risk of the terminal over the same spans, shifted by the delay after which fraud is known. Pure; logged with every
model version.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DAY = 86_400  # seconds
SPANS = {"1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
_KEY = 1 << 34  # seconds; more than any span of data, so that keys never overlap on one axis

RAW = {
    "transaction_id": {"type": "integer"},
    "event_time": {"type": "time"},
    "customer_id": {"type": "integer"},
    "terminal_id": {"type": "integer"},
    "amount": {"type": "number"},
    "fraud": {"type": "number", "nullable": True},
}


def features(raw: pd.DataFrame, *, label_delay_s: int) -> pd.DataFrame:
    """Every raw column plus the final features, rows in the order given.

    Payments happen in the order (event_time, transaction_id). A customer's window (t - span, t] holds that payment
    and the ones before it. A terminal's window (t - delay - span, t - delay] holds payments whose label is known by t:
    labels of the last `label_delay_s` seconds are never read. A null label counts as no fraud; an empty window has
    risk 0.
    """
    out = raw.copy()
    seconds = out["event_time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    order = np.lexsort((out["transaction_id"].to_numpy(), seconds))
    time = seconds[order]
    cents = np.rint(out["amount"].to_numpy(dtype=np.float64)[order] * 100).astype(np.int64)
    fraud = (out["fraud"].fillna(0).to_numpy(dtype=np.float64)[order] > 0).astype(np.int64)
    columns: dict[str, NDArray[np.generic]] = {}

    customers = _Windows(out["customer_id"].to_numpy()[order], time)
    for name, span in SPANS.items():
        count, total = customers.before(cents, span=span)
        columns[f"customer_payments_{name}"] = count
        columns[f"customer_amount_mean_{name}"] = total / 100 / count
    known, frauds = customers.known(fraud, span=SPANS["30d"], delay=label_delay_s)
    columns["customer_fraud_30d"] = frauds / np.maximum(known, 1)

    terminals = _Windows(out["terminal_id"].to_numpy()[order], time)
    for name, span in SPANS.items():
        known, frauds = terminals.known(fraud, span=span, delay=label_delay_s)
        columns[f"terminal_payments_{name}"] = known
        columns[f"terminal_risk_{name}"] = frauds / np.maximum(known, 1)

    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    for name, values in columns.items():
        out[name] = values[back]
    hour = seconds // 3_600 % 24
    out["hour"] = hour
    out["night"] = hour < 7
    out["weekend"] = (seconds // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    mean = out["customer_amount_mean_30d"].to_numpy()
    out["amount_to_mean_30d"] = np.divide(out["amount"].to_numpy(), mean, out=np.ones(len(out)), where=mean > 0)
    return out


class _Windows:
    """Sums over a trailing time window of one key, for all rows at once, by cumulative sums and binary search.

    Rows come in time order; integers only, so that differences of cumulative sums are exact.
    """

    def __init__(self, keys: NDArray[np.generic], time: NDArray[np.int64]) -> None:
        _, code = np.unique(keys, return_inverse=True)
        start = time[0] if len(time) else 0
        self._order = np.argsort(code, kind="stable")  # by key, then time, then transaction
        self._base = code[self._order].astype(np.int64) * _KEY
        self._at = self._base + (time - start)[self._order]

    def before(self, values: NDArray[np.int64], *, span: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count and sum over (t - span, t], the row itself included, rows after it at the same second not."""
        return self._sums(values, self._after(span), np.arange(1, len(values) + 1))

    def known(self, values: NDArray[np.int64], *, span: int, delay: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count and sum over (t - delay - span, t - delay]; the row itself never counts, even without delay."""
        high = np.minimum(self._after(delay), np.arange(len(values)))
        return self._sums(values, np.minimum(self._after(delay + span), high), high)

    def _after(self, age: int) -> NDArray[np.int64]:
        """Per row: how many rows precede the first one of its key that is younger than `age`."""
        found: NDArray[np.int64] = np.searchsorted(self._at, np.maximum(self._at - age, self._base - 1), side="right")
        return found

    def _sums(
        self, values: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        running = np.concatenate([[0], np.cumsum(values[self._order])])
        count, total = np.empty_like(values), np.empty_like(values)
        count[self._order] = high - low
        total[self._order] = running[high] - running[low]
        return count, total
