"""False alarms under peeking, power and time to a decision beside gbstats, and sample ratios. Seeded; about 3 minutes.

    python benchmarks/statistics/run.py [--tests 6000] [--runs 1500] [--no-peer] [--home DIR]

Writes results.json, error-rates.md (the tables of docs/math/measured.md), beside-gbstats.md (those of
docs/explanation/statistics-benchmark.md) and effect.svg under --home. All decisions are the product's
(`control_plane.domain.analysis.comparison`), in arrays; a sample of them is taken again by the product itself and any
disagreement ends the run. gbstats runs in an environment of its own, made under --home.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.statistics import peer, vector, worlds  # noqa: E402
from benchmarks.statistics.vector import Floats, Looks  # noqa: E402
from control_plane.domain.analysis import plan as plans  # noqa: E402
from control_plane.domain.analysis.plan import Metric, Resolved, Role  # noqa: E402

ALPHA, SRM_ALPHA, MDE = 0.05, 0.001, 0.1  # the margin of every goal is a tenth of its usual value
BASES, LIFTS, HORIZONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.3), (0.05, 0.1, 0.2, 0.5), (20_000, 50_000, 100_000)
CHUNK = 500  # tests at a time
LOOKS, TESTS, RUNS = (50, 500), 6_000, 1_500  # of the published tables


def upper(alarms: int, tests: int) -> float:
    """Clopper-Pearson: the upper end of the two-sided 95 % interval."""
    return float(stats.beta.ppf(0.975, alarms + 1, tests - alarms)) if alarms < tests else 1.0


def conditions() -> dict[str, tuple[Resolved, worlds.World]]:
    error = plans.resolve(Metric("label_error", Role.GOAL, 0.015), vector.DECLARED)
    return {
        "conversion 0.5 %": (vector.goal("outcome:bought", 0.0005), worlds.conversion(0.005, 100_000)),
        "conversion 5 %": (vector.goal("outcome:bought", 0.005), worlds.conversion(0.05, 20_000)),
        "conversion 30 %": (vector.goal("outcome:bought", 0.03), worlds.conversion(0.3, 10_000)),
        "log-normal amounts of every tenth customer": (vector.goal("outcome:spent", 0.33), worlds.amounts(0.1, 10_000)),
        "several predictions per customer, unlike rates": (error, worlds.clustered(10_000)),
        "three arms": (vector.goal("outcome:bought", 0.005), worlds.conversion(0.05, 20_000, arms=3)),
        "delayed labels": (vector.goal("outcome:bought", 0.003), worlds.delayed(0.05, 20_000)),
        "ramp 1-5-10-25-50, the rate moves": (vector.goal("outcome:bought", 0.005), worlds.ramp(0.05, 20_000)),
    }


def seed_of(name: str, looks: int) -> int:
    """Of the published row."""
    return 100 * list(conditions()).index(name) + looks


def false_alarms(name: str, tests: int, looks: int, *, seed: int, sample: int = 60) -> dict[str, Any]:
    metric, world = conditions()[name]
    rng, alarms, wrong, checked = np.random.default_rng(seed), 0, 0, 0
    for begin in range(0, tests, CHUNK):
        (*candidates, baseline), _ = world(rng, min(CHUNK, tests - begin), looks)
        alpha = ALPHA / len(candidates)  # Bonferroni over arms, as the product over metrics
        ever = np.zeros(len(baseline.count), dtype=bool)
        for candidate in candidates:
            found = vector.differs(metric, candidate, baseline, alpha=alpha)
            ever |= found.any(axis=1)
            if begin == 0:
                checking = vector.disagreements(
                    metric, candidate, baseline, found, alpha=alpha, sample=sample, seed=seed
                )
                wrong, checked = wrong + checking[0], checked + checking[1]
        alarms += int(ever.sum())
    return {
        "condition": name, "looks": looks, "tests": tests, "alarms": alarms, "rate": alarms / tests,
        "upper": upper(alarms, tests), "holds": upper(alarms, tests) <= ALPHA + 0.005,
        "checked": checked, "otherwise": wrong,
    }  # fmt: skip


def events(rng: np.random.Generator, base: float, lift: float, horizon: int, runs: int, looks: int) -> Floats:
    """(runs, looks, arms): candidate first."""
    return rng.binomial(horizon // looks, [base * (1 + lift), base], (runs, looks, 2)).cumsum(axis=1)


def cell(base: float, lift: float, horizon: int, *, runs: int, looks: int, seed: int) -> dict[str, Any]:
    drawn = events(np.random.default_rng(seed), base, lift, horizon, runs, looks)
    units = horizon // looks * np.arange(1, looks + 1, dtype=float)
    arms = [Looks.of_events(drawn[..., at], units) for at in (0, 1)]
    metric = vector.goal("outcome:bought", MDE * base)
    found = {"ours": vector.differs(metric, arms[0], arms[1], alpha=ALPHA)}
    for kind in ("relative", "absolute"):
        found[kind] = peer.differs(drawn[..., 0], drawn[..., 1], units, alpha=ALPHA, relative=kind == "relative")
    row: dict[str, Any] = {"base": base, "lift": lift, "horizon": horizon}
    for name, flags in found.items():
        ever, at = vector.first(flags, units)
        row[name] = {"power": float(ever.mean()), "units": float(at.mean())}
    for kind in ("relative", "absolute"):
        theirs = row[kind]
        row[f"not behind {kind}"] = row["ours"]["power"] >= theirs["power"] and row["ours"]["units"] <= theirs["units"]
    return row


def grid(runs: int, looks: int = 50) -> list[dict[str, Any]]:
    cells = [(base, lift, horizon) for base in BASES for lift in LIFTS for horizon in HORIZONS]
    return [cell(*of, runs=runs, looks=looks, seed=1_000 + at) for at, of in enumerate(cells)]


def sample_ratio(tests: int) -> dict[str, Any]:
    rng, even, even_looks = np.random.default_rng(7), np.array([0.5, 0.5]), 500
    found = {"bug found": 0, "false alarms": 0, "ramp alarms": 0}
    for begin in range(0, tests, CHUNK):
        size = min(CHUNK, tests - begin)

        def log_e(share: float, units: int, looks: int, intended: Floats, size: int = size) -> Floats:
            first = rng.binomial(units // looks, share, (size, looks)).cumsum(axis=1)
            n = units // looks * np.arange(1, looks + 1)
            return vector.log_mismatch(np.stack([first, n - first], axis=-1).astype(float), intended)

        line = -np.log(SRM_ALPHA)
        found["bug found"] += int((log_e(0.51, 100_000, 100, even) >= line).any(axis=1).sum())
        found["false alarms"] += int((log_e(0.5, 200_000, even_looks, even) >= line).any(axis=1).sum())
        total, ever = np.zeros(size), np.zeros(size, dtype=bool)
        for weight in (0.01, 0.05, 0.1, 0.25, 0.5):  # candidate, baseline of the same size, everybody else
            shares = np.array([weight, weight, 1 - 2 * weight]) if weight < 0.5 else even
            counts = rng.multinomial(1_000, shares, (size, 100)).cumsum(axis=1).astype(float)
            stage = vector.log_mismatch(counts, shares)
            ever |= (total[:, None] + stage >= line).any(axis=1)
            total += stage[:, -1]
        found["ramp alarms"] += int(ever.sum())
    return {"tests": tests, **found}


def held_against_gbstats(home: Path, looks: int = 400) -> dict[str, Any]:
    """Raises AssertionError should the package compare another difference by default than is said here."""
    rng, drawn = np.random.default_rng(3), []
    for _ in range(looks):
        units, base, lift = int(rng.integers(200, 40_000)), float(rng.choice(BASES)), float(rng.uniform(-0.4, 0.6))
        drawn.append((units, int(rng.binomial(units, base * (1 + lift))), int(rng.binomial(units, base))))
    default, otherwise = peer.held_against(peer.environment(home), drawn)
    assert default == peer.DEFAULT
    return {"looks": 2 * looks, "otherwise": otherwise, "default": default}


def alarm_row(r: dict[str, Any]) -> str:
    return f"| {r['condition']} | {r['looks']} | {r['tests']:,} | {r['rate']:.2%} | {r['upper']:.2%} |"


def ratio_rows(ratio: dict[str, Any]) -> list[str]:
    """Of what is to be found the lower bound counts, of false alarms the upper one."""
    tests = ratio["tests"]
    least = 1 - upper(tests - ratio["bug found"], tests)
    rows = [f"| a 51/49 split found within 100,000 units | {ratio['bug found'] / tests:.1%} | at least {least:.1%} |"]
    for name, said in (("false alarms", "50/50"), ("ramp alarms", "ramp 1-5-10-25-50")):
        most = upper(ratio[name], tests)
        rows.append(f"| {said}, 500 looks: called broken | {ratio[name] / tests:.3%} | at most {most:.3%} |")
    return rows


def error_rates(found: dict[str, Any]) -> str:
    lines = ["| condition | looks | tests | ever called different | upper 95 % bound |", "|---|---|---|---|---|"]
    lines += [alarm_row(row) for row in found["false_alarms"]]
    ratio = found["sample_ratio"]
    lines += ["", f"| sample ratio, of {ratio['tests']:,} tests each | share | 95 % bound |", "|---|---|---|"]
    return "\n".join([*lines, *ratio_rows(ratio)])


def shares(rows: list[dict[str, Any]]) -> list[str]:
    """In how many cells nothing is lost to gbstats, by each of its differences."""
    said = {"relative": "as it comes (relative difference)", "absolute": "told to use the absolute difference"}
    return [
        f"gbstats {what}: at least its power and no later on average in "
        f"{sum(row[f'not behind {kind}'] for row in rows) / len(rows):.0%} of {len(rows)} cells."
        for kind, what in said.items()
    ]


def beside_gbstats(rows: list[dict[str, Any]]) -> str:
    lines = [part for share in shares(rows) for part in (share, "")]
    lines += [
        "| usual rate | lift | customers per arm | power | gbstats | absolute "
        "| mean customers per arm | gbstats | absolute | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        power = " | ".join(f"{r[name]['power']:.3f}" for name in ("ours", "relative", "absolute"))
        units = " | ".join(f"{r[name]['units']:,.0f}" for name in ("ours", "relative", "absolute"))
        behind = [kind for kind in ("relative", "absolute") if not r[f"not behind {kind}"]]
        note = f"behind {' and '.join('gbstats' if kind == 'relative' else kind for kind in behind)}" if behind else ""
        lines.append(f"| {r['base']:.1%} | {r['lift']:+.0%} | {r['horizon']:,} | {power} | {units} | {note} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Customers until a decision, as shares of gbstats' own, by the power there is to compare."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for kind, marker in (("relative", "o"), ("absolute", "x")):
        x = [row["ours"]["power"] for row in rows]
        axes.scatter(
            x, [row["ours"]["units"] / row[kind]["units"] for row in rows], marker=marker, label=f"gbstats, {kind}"
        )
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("power")
    axes.set_ylabel("customers until decided, of gbstats'")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=TESTS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--no-peer", action="store_true", help="do not hold the formula of gbstats against gbstats")
    parser.add_argument("--home", type=Path, default=ROOT / "benchmarks" / "statistics" / "results")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    found: dict[str, Any] = {"tests": given.tests, "runs": given.runs, "false_alarms": []}
    if not given.no_peer:
        found["gbstats"] = held_against_gbstats(given.home)
        print(found["gbstats"], file=sys.stderr)
    for name in conditions():
        for looks in LOOKS:
            found["false_alarms"].append(false_alarms(name, given.tests, looks, seed=seed_of(name, looks)))
            print(found["false_alarms"][-1], f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    found["grid"] = grid(given.runs)
    found["sample_ratio"] = sample_ratio(given.tests)
    found["seconds"] = time.perf_counter() - started
    (given.home / "results.json").write_text(json.dumps(found, indent=1))
    for name, table in (("error-rates.md", error_rates(found)), ("beside-gbstats.md", beside_gbstats(found["grid"]))):
        (given.home / name).write_text(table + "\n")
        print(table + "\n")
    plot(found["grid"], given.home / "effect.svg")
    if found.get("gbstats", {}).get("otherwise") or any(row["otherwise"] for row in found["false_alarms"]):
        raise SystemExit("a simulated decision is not the one of the product or of gbstats itself")


if __name__ == "__main__":
    main()
