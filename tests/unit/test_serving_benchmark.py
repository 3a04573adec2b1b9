"""The arithmetic of benchmarks/serving: what generators say is read right, ratios and lags are what they are called."""

from typing import Any

import numpy as np
import pytest

from benchmarks.serving import backlog, fixed, load, report, session
from benchmarks.serving.report import Spread
from benchmarks.serving.sustained import Probe, Search, Tracker

WRK = """Running 3s test @ http://127.0.0.1:8420
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
{"requests":1000,"seconds":2.000000,"p50_us":1500,"p99_us":4000,"p999_us":9000,"max_us":12000,"status":3,"broken":2}
"""
OPEN = """{"t":1.000,"due":100,"answered":90}
{"rate":100.0,"seconds":2.010,"due":200,"answered":180,"status":5,"broken":1,"unsent":10,"p50_us":500,"p99_us":2000,\
"p999_us":3000,"max_us":4000,"send_delay_p99_us":60}
"""


def test_answers_of_wrk_are_those_with_a_good_status_and_errors_all_the_others() -> None:
    found = load.read_wrk(WRK)
    assert (found.answered, found.errors, found.rps) == (997, 5, 498.5)
    assert (found.p50_ms, found.p99_ms, found.p999_ms, found.max_ms) == (1.5, 4.0, 9.0, 12.0)


def test_of_an_open_loop_what_was_sent_and_never_answered_is_an_error_and_what_was_not_sent_is_told_apart() -> None:
    found = load.read_open_loop(OPEN)
    assert (found.answered, found.unsent, found.errors) == (180, 10, 5 + 5)
    assert found.send_delay_p99_ms == 0.06


@pytest.mark.parametrize("output", ["", "wrk: unable to connect", '{"t":1.0,"due":1,"answered":1}'])
def test_output_without_a_result_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="no result"):
        load.read_open_loop(output)


def test_predictions_of_one_model_are_counted_over_all_labels_and_processes() -> None:
    text = "\n".join(
        [
            "# TYPE model_predictions_total counter",
            'model_predictions_total{model_name="fixed",status="ok",variant="stable",version="1"} 900.0',
            'model_predictions_total{model_name="fixed",status="ok",variant="candidate",version="2"} 1e2',
            'model_predictions_total{model_name="other",status="ok",variant="stable",version="1"} 7.0',
            'model_predictions_unlogged_total{model_name="fixed"} 5.0',
        ]
    )
    assert backlog.counted(text, "fixed") == 1000


def test_the_lag_is_the_age_of_the_oldest_answer_that_is_not_in_postgres() -> None:
    answered = [(0.0, 0), (1.0, 100), (2.0, 200), (3.0, 300)]
    assert backlog.lag_s(answered, 300, 3.0) == 0.0
    assert backlog.lag_s(answered, 200, 3.0) == pytest.approx(1.0)
    assert backlog.lag_s(answered, 50, 3.0) == pytest.approx(2.5)
    assert backlog.lag_s(answered, 0, 3.0) == pytest.approx(3.0)
    assert backlog.lag_s([], 0, 3.0) == 0.0


def test_answers_that_differ_from_the_models_own_are_named() -> None:
    expected = np.array([0.25, 0.5])
    assert fixed.differs(expected, [0.25, 0.5 + 1e-8]) is None
    assert "1 of 2 answers differ" in str(fixed.differs(expected, [0.25, 0.51]))
    assert fixed.differs(expected, [0.25]) is not None


def run(number: int, rate: float, kind: str = "closed", connections: int | None = 16, **more: Any) -> dict[str, Any]:
    times = {"p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0, "errors": 0, "answered": int(rate * 10)}
    used = {"cpu_s": {"server": 10.0}, "pss_mb": {"server": 100}, "foreign_cpu": 0.0}
    return {"round": number, "kind": kind, "connections": connections, "rps": rate, **times, **used, **more}


def results(**systems: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {"cpu": "cpu", "cores": 2, "memory_gb": 8.0, "kernel": "6", "python": "3.11", "date": "2026-11-21T00:00"}
    found = {name: {"versions": {"x": "1"}, "variant": "1 worker", "runs": runs} for name, runs in systems.items()}
    return {"machine": machine, "settings": {"seconds": 10, "rounds": 2}, "systems": found}


def test_ratios_are_taken_within_a_round_and_their_spread_is_over_the_rounds() -> None:
    of = results(mlcp=[run(1, 8000), run(2, 6000)], slow=[run(1, 1000), run(2, 1000)])
    found = report.ratio(of, "mlcp", "slow", report.rps, kind="closed", connections=16)
    assert found == Spread(7.0, 6.0, 8.0)
    assert report.ratio(of, "mlcp", "absent", report.rps, kind="closed") is None


def test_the_best_peer_is_neither_ours_nor_the_limit() -> None:
    of = results(mlcp=[run(1, 9000)], nginx=[run(1, 20000)], slow=[run(1, 100)], quick=[run(1, 2000)])
    assert report.best_peer(of) == report.best_peer(of, 16) == "quick"


def test_cpu_and_memory_are_those_of_what_answers_and_logs() -> None:
    parts = {"router": 2.0, "model servers": 3.0, "shipper": 1.0, "ingester": 1.0, "postgres": 9.0, "control": 4.0}
    made = run(1, 100.0, cpu_s=parts, pss_mb={"router": 80, "postgres": 500})
    assert report.cpu_per_million(made) == pytest.approx(7.0 / 1000 * 1e6)
    assert report.cpu_per_million(made, ["postgres"]) == pytest.approx(9.0 / 1000 * 1e6)
    assert report.memory(made) == 80


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = {claim.text: claim.met for claim in report.claims(results(slow=[run(1, 100)]))}
    assert set(found.values()) == {None}


def test_claims_compare_with_their_bounds() -> None:
    ours = [run(1, 4100), run(1, 4100, connections=64), run(1, 900, connections=1, p50_ms=0.5)]
    ours += [run(1, 2000, "open, batch job", None, p99_ms=5.5)]
    ours += [{"round": 1, "kind": "log", "answered": 10, "in_postgres": 9}]
    held = {"rate": 2000.0, "seconds": 300.0, "answered": 599_900, "lag_s": 2.0, "errors": 0}
    ours += [{"round": 1, "kind": "sustained", **held}]
    peer = [run(1, 1000), run(1, 1100, connections=64), run(1, 800, connections=1, p50_ms=0.6)]
    met = [claim.met for claim in report.claims(results(mlcp=ours, peer=peer, nginx=[run(1, 20000)]))]
    assert met == [True, False, False, None, False, False, True, False]
    assert "| mlcp" in report.markdown(results(mlcp=ours, peer=peer))


@pytest.mark.parametrize(
    ("late", "p99", "again"),
    [
        ([0.1], 1, []),
        ([80.0, 0.1], 2, [1]),
        ([80.0, 3.0, 5.0, 0.1], 2, [1, 3]),
    ],
    ids=["on time", "late once", "late thrice"],
)
def test_an_open_loop_is_run_again_while_its_generator_is_late_at_most_twice(
    late: list[float], p99: int, again: list[int]
) -> None:
    runs = ({"p99_ms": n + 1, "send_delay_p99_ms": ms, "errors": 7, "unsent": 0} for n, ms in enumerate(late))
    chosen = session.punctual(lambda: next(runs))
    assert chosen["p99_ms"] == p99
    assert [one["p99_ms"] for one in chosen["repeated"]] == again
    shown = report.markdown(results(mlcp=[run(1, 100), run(1, 50, "open", None) | chosen]))
    assert shown.count("discarded") == len(again)
    assert ("the others were later" in shown) == (min(late[:3]) > load.PUNCTUAL_MS)
    assert f"| {7 + 7 * len(again)} |" in shown, "errors of discarded runs are errors"


def found_at(limit: float) -> Search:
    """A search on a system that keeps up until `limit`."""

    def probe(rate: float, seconds: float) -> Probe:
        lag = 0.5 if rate <= limit else 9.0
        return Probe(rate, seconds, round(rate * seconds), 0, lag, lag, 1.0)

    return Search(probe)


@pytest.mark.parametrize("limit", [500.0, 3000.0, 5500.0, 9000.0])
def test_the_search_ends_with_a_rate_that_was_held_for_the_whole_time_close_to_the_limit(limit: float) -> None:
    search = found_at(limit)
    last = search.run(6000.0, 300.0, 20.0)
    assert last.held
    assert last.seconds == 300.0
    assert 0.9 * min(limit, 6000.0) - 6000.0 / 32 <= last.rate <= limit


def test_a_rate_is_held_only_with_every_request_answered_and_the_log_close_behind() -> None:
    good = Probe(100.0, 10.0, 1000, 0, 4.9, 1.0, 1.0)
    assert good.held
    for worse in ((980, 0, 4.9), (1000, 1, 4.9), (1000, 0, 5.0)):
        answered, errors, lag = worse
        assert not Probe(100.0, 10.0, answered, errors, lag, lag, 1.0).held


def test_a_hopeless_probe_is_ended_early() -> None:
    tracker = Tracker(lambda: 0)
    assert all(tracker.second(float(t), 100 * t) for t in range(1, 10))
    assert not tracker.second(11.0, 1100)
