"""Buckets of one limit in several workers: together they never hand out more than the limit and its burst."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.bus import Offer
from control_plane.router.limits import TICK_S, Bucket, admit, burst, refusal

Event = tuple[float, int, int]  # seconds since the last one, worker, requests at once; 0 requests: a trade


class Pool:
    """The exchange in Redis, as arithmetic."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self.wanted = False

    def trade(self, bucket: Bucket, now: float) -> None:
        offer: Offer | None = bucket.offer(now, wanted=self.wanted)
        if offer is None:
            return
        self.tokens = min(offer.room, self.tokens + offer.give)
        got = min(self.tokens, offer.take)
        self.tokens -= got
        bucket.granted(got)
        self.wanted = self.wanted or offer.take > 0


EVENTS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(0, 4), st.integers(0, 12) | st.just(0)), min_size=1, max_size=120
)


@given(st.floats(0.2, 40), st.integers(1, 5), EVENTS)
def test_no_period_sees_more_than_the_rate_and_the_stated_burst(rate: float, workers: int, events: list[Event]) -> None:
    now, pool = 0.0, Pool()
    buckets = [Bucket("key:k", rate, 1 / workers, now) for _ in range(workers)]
    passed = list[float]()
    for wait, number, requests in events:
        now += wait
        bucket = buckets[number % workers]
        if not requests:
            pool.trade(bucket, now)
        passed += [now for _ in range(requests) if bucket.take(now)]
    allowed = burst(rate, workers)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= rate * (passed[last] - begin) + allowed + 1e-6


@given(st.floats(1, 50), st.lists(st.tuples(st.floats(0, 2), st.integers(0, 6)), min_size=1, max_size=60))
def test_changing_the_share_makes_no_tokens(rate: float, changes: list[tuple[float, int]]) -> None:
    now, before = 0.0, 0.0
    bucket = Bucket("key:k", rate, 1, now)
    for wait, workers in changes:
        now, before = now + wait, bucket.tokens
        pace = bucket.pace
        bucket.share(1 / workers if workers else 0.0, now)
        assert bucket.tokens <= before + wait * pace + 1e-6
        assert bucket.tokens <= bucket.room


def test_a_worker_alone_gets_the_whole_rate_and_what_others_leave() -> None:
    pool, now = Pool(), 0.0
    busy, idle = Bucket("key:k", 100, 0.5, now), Bucket("key:k", 100, 0.5, now)
    passed = 0
    for _ in range(1_000):  # ten seconds
        now += 0.01
        passed += sum(busy.take(now) for _ in range(5))
        pool.trade(busy, now)
        if round(now / 0.01) % round(TICK_S / 0.01) == 0:
            pool.trade(idle, now)
    assert 950 <= passed <= 1_000 + burst(100, 2)


def test_a_worker_that_begins_has_one_token_and_not_a_full_bucket() -> None:
    bucket = Bucket("key:k", 100, 0.5, 0.0, up_s=0.0)
    assert [bucket.take(0.0), bucket.take(0.0)] == [True, False]
    assert bucket.take(0.02), "it fills at once"


def test_a_request_the_model_refuses_costs_the_key_nothing() -> None:
    key, model = Bucket("key:k", 2, 1, 0.0), Bucket("model:churn", 1, 1, 0.0)
    assert admit(key, model) is None
    assert admit(key, model) is model
    assert key.tokens >= 1
    assert admit(key, None) is None
    assert admit(None, None) is None


def test_a_refusal_says_when_to_come_back_and_what_the_limit_is() -> None:
    bucket = Bucket("model:churn", 0.25, 1, 0.0)
    bucket.take(0.0)
    bucket.take(0.0)
    refused = refusal(bucket)
    assert (refused.status, refused.slug, refused.retry_after_s) == (429, "rate-limited", 4)
    assert refused.headers == b'ratelimit-policy: "model";q=1;w=4\r\nratelimit: "model";r=0;t=4\r\n'
    assert "churn" in refused.detail
    assert "0.25" in refused.detail
