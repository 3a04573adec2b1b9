"""False alarms and detection of the monitor, at its default setting, over simulated models of 30 features.

    python -m benchmarks.drift.alarms [--models 200] [--days 90] [--looks 24] [--rows 1000,1000000] [--seed N]
                                      [--drifted 60] [--out results.json]

20 numbers and 10 categories of 10,000 levels, a weekly season, effects of the day, customers who come back (blocks are
customers). A model begins as in life: compared with its training data first, then with its own days. `--rows` are
blocks a day; nothing differs between them. Detection: after four weeks, a shift of 0.25 standard deviations in 3 of
the 30 features, 10,000 blocks a day, found within its first day.
"""

import argparse
import json
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from control_plane.domain.drift import evidence, monitor
from control_plane.domain.drift.monitor import Course, Kind
from tests.support import drift_streams as streams
from tests.support.drift_streams import Stream

START = date(2026, 3, 2)
REFERENCE = streams.reference()
SCORES = evidence.scores_of(REFERENCE)
SETTINGS = monitor.settings_for(0.01, Kind.DATA)
LEAST = 9  # days until a day so far is judged
PRIOR = evidence.prior(SCORES, REFERENCE, SETTINGS)


def alarm(rng: np.random.Generator, stream: Stream, *, days: int, looks: int, blocks: int, shifted_from: int) -> Any:
    """(day of the first alarm, features); None without one."""
    closed: dict[date, evidence.Day] = {}
    parts: dict[int, dict[date, evidence.Day]] = {at: {} for at in range(looks)}
    usual: dict[int, dict[int, evidence.Baseline]] = {at: {} for at in range(looks)}
    calm, past = Stream(stream.season, stream.day_sd), monitor.begin(SCORES)
    facts: dict[str, Any] = {"since": date.min, "excluded": (), "settings": SETTINGS}
    for number in range(days):
        today = START + timedelta(days=number)
        now = stream if number >= shifted_from else calm
        (measured,) = streams.days(SCORES, now, rng, first=number, count=1, looks=looks, blocks=blocks)
        if len(closed) >= LEAST:
            for at in range(looks):
                course = Course(closed, parts[at], measured[at])
                found = monitor.weigh(
                    SCORES, PRIOR, course, today, early=False, past=past, learnt=usual[at], **facts
                ).evidence
                if found is not None and found.alarm:
                    return number, monitor.leading(found)
        closed[today] = measured[-1]
        for at, part in enumerate(measured):
            parts[at][today] = part
        past = monitor.advance(past, closed, today, measured[-1], PRIOR, **facts)
        standing = evidence.standing(SCORES, past.state, SETTINGS)
        if standing.alarm:
            return number, monitor.leading(standing)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--looks", type=int, default=24, help="a day")
    parser.add_argument("--rows", default="1000,1000000")
    parser.add_argument("--drifted", type=int, default=60, help="models that drift")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"models": given.models, "days": given.days, "looks": given.looks}
    for rows in map(int, given.rows.split(",")):
        started = time.monotonic()
        facts = {"days": given.days, "looks": given.looks, "blocks": rows, "shifted_from": given.days}
        alarms = [alarm(np.random.default_rng([given.seed, rows, at]), Stream(), **facts) for at in range(given.models)]
        raised = [one for one in alarms if one is not None]
        found[f"false alarms at {rows} a day"] = len(raised)
        took = time.monotonic() - started
        print(
            f"{rows:>9,} a day: {len(raised)} of {given.models} calm models alarmed in {given.days} days ({took:.0f} s)"
        )
    facts = {"days": 29, "looks": given.looks, "blocks": 10_000, "shifted_from": 28}
    drifting = Stream(shift=0.25, shifted=3)
    seen = [alarm(np.random.default_rng([given.seed, 7, at]), drifting, **facts) for at in range(given.drifted)]
    hits = [one for one in seen if one is not None and one[0] == 28]
    right = sum(set(names) <= {"x0", "x1", "x2"} for _, names in hits)
    found |= {"drifted": given.drifted, "found within a day": len(hits), "with the right features": right}
    print(f"shift of 0.25 in 3 of 30: {len(hits)} of {given.drifted} found within a day, {right} naming only those")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
