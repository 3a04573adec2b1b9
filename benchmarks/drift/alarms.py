"""False alarms and detection of the monitor, at its default setting, over simulated models of 30 features.

    python -m benchmarks.drift.alarms --rows 1000 --models 0:200 [--days 90] [--out results/alarms.jsonl]
    python -m benchmarks.drift.alarms --rows 10000 --models 0:200 --shift 0.25
    python -m benchmarks.drift.alarms --peers 20 [--home DIR]
    python -m benchmarks.drift.alarms

20 numbers, half of them skewed, and 10 categories of 10,000 levels; a weekly season, a clock, effects of the day,
customers of two kinds of whom each counts once a day (`tests/support/drift_hours.py`). A model begins as in life,
compared with its training data first, then with its own days; it is looked at after every hour. `--shift`: after four
weeks 3 of the 30 features move by so many standard deviations, which is to be found within the day.

Model number n is always the same model. Each run appends a line to --out; without --models its lines are added up.
`--peers`: the defaults of Evidently and NannyML, a look a day for a week, at rows of models simulated alike.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from control_plane.domain.drift import evidence, monitor
from control_plane.domain.drift.evidence import Baseline, Day
from control_plane.domain.drift.monitor import Kind
from tests.support import drift_hours as hours
from tests.support import drift_streams as streams
from tests.support.drift_hours import Traffic

START = date(2026, 3, 2)
REFERENCE = streams.reference()
SCORES = evidence.scores_of(REFERENCE)
SETTINGS = monitor.settings_for(0.01, Kind.DATA)
PRIOR = evidence.prior(SCORES, REFERENCE, SETTINGS)
SHIFTED_FROM = 28
RESULTS = Path(__file__).parent / "results"
PEER_ROWS, PEER_DAYS = 1_000, 7

EVIDENTLY = """
import json, sys, warnings
warnings.simplefilter("ignore")
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
reference, looks = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2])
names = {kind: list(reference.select_dtypes(**{kind: "number"}).columns) for kind in ("include", "exclude")}
types = DataDefinition(numerical_columns=names["include"], categorical_columns=names["exclude"])
reference = Dataset.from_pandas(reference, types)  # left to itself it takes many levels for text: minutes a report
found = {}
for model, mine in looks.groupby("model"):
    days = []
    for _, window in mine.groupby("day"):
        current = Dataset.from_pandas(window.drop(columns=["model", "day"]), types)
        result = Report([DataDriftPreset()]).run(current, reference).dict()
        counted = [m["value"] for m in result["metrics"] if isinstance(m["value"], dict) and "count" in m["value"]]
        days.append(int(counted[0]["count"]))
    found[int(model)] = days
print(json.dumps(found))
"""
NANNYML = """
import json, sys, warnings
warnings.simplefilter("ignore")
import nannyml as nml, pandas as pd
reference, looks = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2])
calculator = nml.UnivariateDriftCalculator(column_names=list(reference.columns), chunk_size=int(sys.argv[3]))
calculator.fit(reference)
found = {}
for model, mine in looks.groupby("model"):
    days = []
    for _, window in mine.groupby("day"):
        frame = calculator.calculate(window.drop(columns=["model", "day"]).reset_index(drop=True))
        frame = frame.filter(period="analysis").to_df(multilevel=False)
        alarms = [c for c in frame.columns if c.endswith("_alert")]
        days.append(len({c.rsplit("_", 2)[0].rsplit("_", 1)[0] for c in alarms if bool(frame[c].iloc[0])}))
    found[int(model)] = days
print(json.dumps(found))
"""


def alarm(rng: np.random.Generator, traffic: Traffic, *, days: int) -> tuple[int, tuple[str, ...]] | None:
    """(day of the first alarm, features); None without one. What `monitor.weigh` finds, a day's looks at once."""
    closed: dict[date, Day] = {}
    by_hour: dict[date, Day] = {}
    learnt: dict[int, Baseline] = {}
    past = monitor.begin(SCORES)
    for number in range(days):
        today = START + timedelta(days=number)
        now = traffic if number >= SHIFTED_FROM else replace(traffic, shift=0.0)
        measured = hours.measured(SCORES, now, rng, number)
        usual, season, _ = monitor.usual_of(by_hour, past.taught, today, PRIOR, SETTINGS, learnt)
        if usual is not PRIOR:
            log_e = evidence.heights(SCORES, past.state, measured, usual, season=season, settings=SETTINGS)
            looked = measured.blocks[:, 0] >= SETTINGS.least_blocks
            found = np.flatnonzero(looked & (log_e >= -np.log(SETTINGS.alpha)))
            if len(found):
                at = _hour(measured, int(found[0]))
                then = replace(usual, centre=usual.centre[:, found[0]], error=usual.error[:, found[0]])
                then = replace(then, day_sd=usual.day_sd[found[0]])
                seen = evidence.look(SCORES, past.state, at, then, season=season, settings=SETTINGS)
                return number, monitor.leading(seen)
        closed[today], by_hour[today] = _hour(measured, -1), measured
        facts: dict[str, Any] = {"since": date.min, "excluded": (), "settings": SETTINGS}
        past = monitor.advance(past, closed, today, closed[today], PRIOR, **facts)
        standing = evidence.standing(SCORES, past.state, SETTINGS)
        if standing.alarm:
            return number, monitor.leading(standing)
    return None


def _hour(day: Day, at: int) -> Day:
    return Day(day.blocks[at], day.mean[at], day.variance[at])


def run(given: argparse.Namespace) -> dict[str, Any]:
    first, last = map(int, given.models.split(":"))
    traffic = Traffic(given.rows, shift=given.shift, shifted=3 if given.shift else 0)
    days = SHIFTED_FROM + 1 if given.shift else given.days
    started, alarms = time.process_time(), list[Any]()
    for model in range(first, last):
        found = alarm(np.random.default_rng([given.rows, int(1000 * given.shift), model]), traffic, days=days)
        if found is not None:
            alarms.append([model, *found])
    facts = {"rows": given.rows, "shift": given.shift, "days": days, "first": first, "last": last}
    return {**facts, "alarms": alarms, "cpu_s": round(time.process_time() - started, 1)}


def table(lines: Iterable[dict[str, Any]]) -> str:
    """Every model once, however often it was run."""
    shown = ["| stream | models | alarmed | at most, 95 % | CPU seconds |", "|---|---|---|---|---|"]
    kinds: dict[tuple[int, float, int], list[dict[str, Any]]] = {}
    for line in lines:
        kinds.setdefault((line["rows"], line["shift"], line["days"]), []).append(line)
    for (rows, shift, days), mine in sorted(kinds.items(), key=lambda kind: (kind[0][1], kind[0][0])):
        models = {model for line in mine for model in range(line["first"], line["last"])}
        alarms = {one[0]: one[1:] for line in mine for one in line["alarms"]}
        seconds = sum(line["cpu_s"] for line in mine)
        if shift:
            hits = [names for at, names in alarms.values() if at == days - 1]
            right = sum(set(names) <= {"x0", "x1", "x2"} for names in hits)
            said = f"{len(hits)} within the day, {right} naming no other feature; {len(alarms) - len(hits)} before"
            shown.append(f"| {shift} sd in 3 of 30, {rows:,} a day | {len(models):,} | {said} | | {seconds:.0f} |")
        else:
            bound = float(stats.beta.ppf(0.95, len(alarms) + 1, len(models) - len(alarms)))
            shown.append(
                f"| calm, {rows:,} a day, {days} days | {len(models):,} | {len(alarms)} | {bound:.2%} | {seconds:.0f} |"
            )
    return "\n".join(shown)


def peers(home: Path, models: int) -> str:
    """How many models have a day with a feature said to drift, by each default, and how many features a day."""
    import pandas as pd

    from benchmarks.drift.run import environment, peer_environ

    rng = np.random.default_rng(5)
    calm = Traffic(PEER_ROWS)
    still = Traffic(10 * PEER_ROWS, season=0.0, clock=0.0, day_sd=0.0)
    reference = _frame(hours.rows_of(still, rng, 0))
    looks = [
        _frame(hours.rows_of(calm, rng, day)).assign(model=model, day=day)
        for model in range(models)
        for day in range(PEER_DAYS)
    ]
    shown = ["| tool, its defaults | models | with an alarm in a week | features alarmed a day |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "reference.parquet", Path(folder) / "looks.parquet"]
        reference.to_parquet(files[0])
        pd.concat(looks, ignore_index=True).to_parquet(files[1])
        for name, script in (("evidently", EVIDENTLY), ("nannyml", NANNYML)):
            argv = [str(environment(home, name)), "-c", script, *map(str, files), str(len(looks[0]))]
            done = subprocess.run(argv, capture_output=True, text=True, env=peer_environ())
            if done.returncode:
                raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
            found: dict[str, list[int]] = json.loads(done.stdout.strip().splitlines()[-1])
            alarmed = sum(any(days) for days in found.values())
            mean = np.mean([count for days in found.values() for count in days])
            shown.append(f"| {name} | {models} | {alarmed} | {mean:.1f} of 30 |")
    return "\n".join(shown)


def _frame(parts: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000, help="a day")
    parser.add_argument("--models", help="FIRST:LAST, of which LAST is not run")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--shift", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "alarms.jsonl")
    parser.add_argument("--peers", type=int, help="models that Evidently and NannyML look at")
    parser.add_argument("--home", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.peers:
        print(peers(given.home, given.peers))
        return
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.models:
        with given.out.open("a") as file:
            print(json.dumps(run(given)), file=file)
    print(table(map(json.loads, given.out.read_text().splitlines())))


if __name__ == "__main__":
    main()
