"""One prediction at a time: this product beside its peers, one fixed model, one machine.

    python benchmarks/serving/run.py [--seconds 60] [--rounds 3] [--connections 1,16,64] [--only NAME...] [--out DIR]

Every system is installed in an environment of its own, answers the same 500 rows with the same model, and runs alone.
Written to --out: serving.json (everything), serving.md (the table and the ratios), serving.svg and serving.png.
Needs Linux, a C compiler, and wrk and nginx (or apt-get to fetch them). What is compared and what is not:
docs/explanation/serving-benchmark.md.
"""

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.serving import fixed, load, report, session, tools  # noqa: E402  (found only from here on)
from benchmarks.serving.limit import Limit  # noqa: E402
from benchmarks.serving.ours import Ours  # noqa: E402
from benchmarks.serving.session import Bench  # noqa: E402
from benchmarks.serving.systems import System, Variant, peers  # noqa: E402

Say = Callable[[str], None]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of every run")
    parser.add_argument("--rounds", type=int, default=3, help="every system once in each")
    parser.add_argument("--connections", default="1,16,64", help="of the closed loops")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these systems alone")
    parser.add_argument("--hold", type=float, default=300, help="seconds the sustained rate is held; 0: not searched")
    parser.add_argument("--rate", type=float, help="hold this many a second instead of searching for the highest rate")
    parser.add_argument("--probe", type=float, default=20, help="seconds of every probe for that rate")
    parser.add_argument("--choose", action="store_true", help="find each system's best variant anew")
    parser.add_argument("--quiet", type=float, default=0.1, help="share of CPU time that may be busy before a run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "serving" / "results")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "benchmarks" / "serving", help="kept between runs")
    parser.add_argument("--home", type=Path, help="MLCP_HOME of our stack (default: in the cache)")
    return parser.parse_args()


def main() -> int:
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is stopped on the way out
    cache, work = given.cache.absolute(), given.cache.absolute() / "work"
    bench = Bench(
        wrk=tools.program(cache, "wrk"),
        open_loop=load.build_open_loop(cache),
        seconds=given.seconds,
        connections=[int(count) for count in given.connections.split(",")],
        hold_s=given.hold,
        probe_s=given.probe,
        rate=given.rate,
    )
    chosen = _selected(given)
    model = fixed.make(cache / "model")
    results: dict[str, Any] = {"machine": _machine(), "settings": _settings(given), "systems": {}}
    for system in chosen:
        say(f"preparing {system.name}")
        results["systems"][system.name] = {"versions": dict(system.prepare(cache, model)), "runs": []}
    variants = {one.name: _variant(bench, one, cache, work, anew=given.choose, results=results) for one in chosen}
    for number in range(1, given.rounds + 1):
        for system in chosen:
            try:
                _round(bench, system, variants[system.name], model, work, number, given, results)
            except RuntimeError as exc:  # one system that fails does not cost the others their round
                results["systems"][system.name].setdefault("failures", []).append(f"round {number}: {exc}")
                say(f"  failed: {exc}")
            report.write(given.out, results)
    say((given.out / "serving.md").read_text())
    return 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _selected(given: argparse.Namespace) -> Sequence[System]:
    home = (given.home or given.cache / "home").absolute()
    known: list[System] = [Ours(home), Limit(Path(tempfile.gettempdir()) / f"mlcp-bench-{os.getuid()}"), *peers()]
    if not given.only:
        return known
    names = {one.name.replace(" ", "-"): one for one in known}
    if odd := [name for name in given.only if name not in names]:
        raise SystemExit(f"--only: there is no {odd[0]}; there are {', '.join(names)}")
    return [names[name] for name in given.only]


def _variant(bench: Bench, system: System, cache: Path, work: Path, *, anew: bool, results: dict[str, Any]) -> Variant:
    """The best variant at 16 connections: measured now, or as an earlier run has found."""
    note = cache / "chosen.json"
    known = json.loads(note.read_text()) if note.exists() else {}
    tried: dict[str, float] = {} if anew else known.get(system.name, {})
    if len(system.variants) > 1 and set(tried) != {one.name for one in system.variants}:
        tried = {}
        for variant in system.variants:
            session.wait_for_quiet(0.1, patience_s=10)
            try:
                with system.running(variant, work / system.name.replace(" ", "-")) as running:
                    tried[variant.name] = round(session.quick(bench, running, 4.0), 1)
            except RuntimeError as exc:
                tried[variant.name] = 0.0
                say(f"  {system.name}, {variant.name}: {exc}")
            say(f"  {system.name}, {variant.name}: {tried[variant.name]:.0f}/s")
        if not any(tried.values()):
            raise SystemExit(f"{system.name} cannot be measured: none of its variants answers")
        note.write_text(json.dumps(known | {system.name: tried}, indent=2))
    best = max(system.variants, key=lambda one: tried.get(one.name, 0.0))
    results["systems"][system.name] |= {"variant": best.name, "variants": tried}
    return best


def _round(
    bench: Bench,
    system: System,
    variant: Variant,
    model: fixed.Fixed,
    work: Path,
    number: int,
    given: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    say(f"round {number}: {system.name} ({variant.name})")
    busy = session.wait_for_quiet(given.quiet)
    if busy > given.quiet:
        say(f"  the machine is not idle ({busy:.0%} busy): these figures are of a disturbed machine")
    with system.running(variant, work / system.name.replace(" ", "-")) as running:
        session.check(running, model)
        runs = session.measured(bench, running)
        if isinstance(system, Ours) and number == given.rounds and bench.hold_s:
            peak = max(run["rps"] for run in runs if run["kind"] == "closed")
            runs.append(session.hold(bench, running, peak))
    for run in runs:
        say(f"  {report.line(run)}")
    results["systems"][system.name]["runs"] += [{"round": number, "busy_before": busy, **run} for run in runs]


def _machine() -> dict[str, Any]:
    cpu = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "seconds": given.seconds,
        "rounds": given.rounds,
        "connections": given.connections,
        "hold_s": given.hold,
        "bodies": fixed.BODIES,
        "trees": fixed.TREES,
        "depth": fixed.DEPTH,
        "features": len(fixed.FEATURES),
    }


if __name__ == "__main__":
    sys.exit(main())
