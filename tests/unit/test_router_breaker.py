from control_plane.router.breaker import FIRST_S, LONGEST_S, THRESHOLD, Breaker


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(THRESHOLD):
        assert breaker.allows(at)
        breaker.failed(at)
    return breaker


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker()
    for _ in range(3 * THRESHOLD):
        for _ in range(THRESHOLD - 1):
            breaker.failed(0)
        breaker.succeeded()
    assert breaker.allows(0)
    assert not opened().allows(FIRST_S / 2)


def test_one_probe_at_a_time_decides() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_S)
    assert not breaker.allows(FIRST_S), "the others wait for the probe"
    breaker.succeeded()
    assert breaker.allows(FIRST_S)
    assert breaker.allows(FIRST_S)


def test_each_failed_probe_doubles_the_pause_up_to_a_limit() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        begun = now
        while not breaker.allows(now):
            now += 0.01
        pauses.append(now - begun)
        breaker.failed(now)
    assert pauses[1] > 1.9 * pauses[0]
    assert max(pauses) <= LONGEST_S + 0.02


def test_a_late_failure_of_a_call_from_before_says_nothing_new() -> None:
    breaker = opened()
    breaker.failed(FIRST_S / 2)
    assert breaker.allows(FIRST_S)


def test_a_probe_that_never_reports_is_followed_by_another() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_S)
    assert breaker.allows(2 * FIRST_S + 0.01)
