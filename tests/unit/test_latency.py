import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import latency


@given(st.lists(st.integers(64, 3_000_000), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_a_quantile_of_the_counts_is_within_a_bucket_of_the_exact_one(values: list[int], share: float) -> None:
    counts = [0] * latency.BUCKETS
    for value in values:
        counts[latency.bucket(value)] += 1
    found = latency.quantile_us(counts, share)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert found is not None
    assert exact / 2**0.26 <= found <= exact * 2**0.26


def test_nothing_counted_has_no_quantile_and_extremes_have_a_bucket() -> None:
    assert latency.quantile_us([0] * latency.BUCKETS, 0.5) is None
    assert (latency.bucket(0), latency.bucket(10**12)) == (0, latency.BUCKETS - 1)
    assert latency.quantile_us([1, *[0] * (latency.BUCKETS - 1)], 0.95) == pytest.approx(64, rel=0.2)
