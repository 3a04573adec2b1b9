"""What the runs say: a table, the ratios with their spreads, a plot. Pure but for `write`."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import load

OURS, LIMIT = "mlcp", "nginx"
HOT = ("router", "model servers", "shipper", "ingester")
_APART = ("postgres", "redis", "control")
Run = Mapping[str, Any]
Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """None without values."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1]) if found else None

    def text(self, digits: int = 0) -> str:
        if self.low == self.high:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} - {self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Claim:
    """`met`: None where what it compares was not measured."""

    text: str
    needed: str
    found: str
    met: bool | None


def spread(results: Results, system: str, value: Callable[[Run], float | None], **of: object) -> Spread | None:
    """Of one figure over a system's runs that have the members `of`."""
    runs = results["systems"].get(system, {}).get("runs", [])
    matching = [run for run in runs if all(run.get(key) == wanted for key, wanted in of.items())]
    return Spread.of(found for run in matching if (found := value(run)) is not None)


def ratio(
    results: Results, ours: str, theirs: str, value: Callable[[Run], float | None], **of: object
) -> Spread | None:
    """Of a figure of two systems, round by round."""

    def by_round(system: str) -> dict[int, float]:
        runs = results["systems"].get(system, {}).get("runs", [])
        found: dict[int, float] = {}
        for run in runs:
            if all(run.get(key) == wanted for key, wanted in of.items()) and (number := value(run)) is not None:
                found[run["round"]] = number
        return found

    a, b = by_round(ours), by_round(theirs)
    return Spread.of(a[number] / b[number] for number in a.keys() & b.keys() if b[number])


def rps(run: Run) -> float:
    return float(run["rps"])


def cpu_per_million(run: Run, roles: Sequence[str] | None = None) -> float | None:
    """CPU seconds per million predictions; `roles` None: all that answer and log, without database and bus."""
    if not run.get("answered"):
        return None
    wanted = roles or [role for role in run["cpu_s"] if role not in _APART]
    return sum(run["cpu_s"].get(role, 0.0) for role in wanted) / run["answered"] * 1e6


def memory(run: Run, roles: Sequence[str] | None = None) -> float:
    """PSS in MB, of the same parts."""
    wanted = roles or [role for role in run["pss_mb"] if role not in _APART]
    return float(sum(run["pss_mb"].get(role, 0) for role in wanted))


def peers(results: Results) -> list[str]:
    return [name for name in results["systems"] if name not in (OURS, LIMIT)]


def best_peer(results: Results, connections: int | None = None) -> str | None:
    """The peer with the highest median throughput at `connections`; None: at any number of them."""
    of: dict[str, object] = {"kind": "closed"} | ({"connections": connections} if connections else {})

    def best(name: str) -> float:
        counts = [connections] if connections else sorted(connections_of(results))
        found = [spread(results, name, rps, kind="closed", connections=count) for count in counts]
        return max((one.median for one in found if one), default=0.0)

    measured = [name for name in peers(results) if spread(results, name, rps, **of)]
    return max(measured, key=best, default=None)


def connections_of(results: Results) -> list[int]:
    found = {
        run["connections"]
        for system in results["systems"].values()
        for run in system["runs"]
        if run["kind"] == "closed"
    }
    return sorted(found)


def claims(results: Results) -> list[Claim]:
    """What the design asks of this benchmark, and what was found."""
    made: list[Claim] = []
    for count in (16, 64):
        if peer := best_peer(results, count):
            found = ratio(results, OURS, peer, rps, kind="closed", connections=count)
            made.append(_at_least(f"throughput at {count} connections against {peer}, the best peer", 4.0, found))
        found = ratio(results, OURS, LIMIT, rps, kind="closed", connections=count)
        made.append(_at_least(f"throughput at {count} connections against nginx before the same server", 0.35, found))
    made.append(_sustained(results))
    late = spread(results, OURS, lambda run: run["p99_ms"], kind="open, batch job")
    made.append(
        Claim(
            "p99 at half of our peak, open loop, beside a batch job",
            "<= 5 ms",
            f"{late.text(2)} ms" if late else "not measured",
            late.median <= 5.0 if late else None,
        )
    )
    made.append(_quickest(results))
    made.append(_complete(results))
    return made


def _at_least(text: str, needed: float, found: Spread | None) -> Claim:
    shown = f"{found.text(2)} x" if found else "not measured"
    return Claim(text, f">= {needed:g} x", shown, found.median >= needed if found else None)


def _sustained(results: Results) -> Claim:
    text = "highest rate held with the log at most 5 s behind, against the best peer's peak"
    held = [run for run in results["systems"].get(OURS, {}).get("runs", []) if run["kind"] == "sustained"]
    peer = best_peer(results)
    if not held or peer is None:
        return Claim(text, ">= 2 x", "not measured", None)
    peaks = [spread(results, peer, rps, kind="closed", connections=count) for count in connections_of(results)]
    peak = max(one.median for one in peaks if one)
    last = held[-1]
    times = last["rate"] / peak
    done = last["answered"] >= 0.99 * last["rate"] * last["seconds"] and last["lag_s"] < 5 and not last["errors"]
    shown = f"{times:.2f} x ({last['rate']:,.0f}/s for {last['seconds']:.0f} s, lag {last['lag_s']:.1f} s)"
    return Claim(text, ">= 2 x", shown if done else f"not held: {shown}", done and times >= 2)


def _quickest(results: Results) -> Claim:
    text = "p50 at 1 connection, below every peer's"
    medians = {
        name: found.median
        for name in results["systems"]
        if name != LIMIT and (found := spread(results, name, lambda run: run["p50_ms"], kind="closed", connections=1))
    }
    if OURS not in medians or len(medians) < 2:
        return Claim(text, "smallest", "not measured", None)
    quickest = min((name for name in medians if name != OURS), key=medians.__getitem__)
    shown = f"{medians[OURS]:.2f} ms; {quickest} {medians[quickest]:.2f} ms"
    return Claim(text, "smallest", shown, medians[OURS] < medians[quickest])


def _complete(results: Results) -> Claim:
    logs = [run for run in results["systems"].get(OURS, {}).get("runs", []) if run["kind"] == "log"]
    if not logs:
        return Claim("answered = rows in Postgres once drained", "equal", "not measured", None)
    shown = "; ".join(f"{run['answered']:,} = {run['in_postgres']:,}" for run in logs)
    equal = all(run["answered"] == run["in_postgres"] for run in logs)
    return Claim(
        "answered = rows in Postgres once drained", "equal", shown.replace(" = ", " = " if equal else " / "), equal
    )


def line(run: Run) -> str:
    """One run in one line, for the terminal."""
    match run["kind"]:
        case "log":
            return f"log: {run['answered']} answered, {run['in_postgres']} in Postgres"
        case "sustained":
            return f"sustained: {run['rate']:.0f}/s for {run['seconds']:.0f} s, lag {run['lag_s']} s"
        case kind:
            what = (
                f"{run['connections']} connections" if run["connections"] else f"{kind} at {run['offered_rps']:.0f}/s"
            )
            cpu = cpu_per_million(run) or 0.0
            behind = f", {run['owed_at_end']} behind, {run['spool_mb']} MB of spool" if "owed_at_end" in run else ""
            times = f"p50 {run['p50_ms']:.2f} p99 {run['p99_ms']:.2f} p99.9 {run['p999_ms']:.2f} ms"
            return (
                f"{what}: {run['rps']:.0f}/s, {times}, {cpu:.0f} CPU s per million, {memory(run):.0f} MB, "
                f"{run['errors']} errors, {run['foreign_cpu']:.0%} of the CPUs used by others{behind}"
            )


def markdown(results: Results) -> str:
    machine, counts = results["machine"], connections_of(results)
    settings = results["settings"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {machine['date']}. {settings['rounds']} rounds of {settings['seconds']:g} s: "
        "median (smallest - largest).",
        "",
        "| system | run as | " + " | ".join(f"{count} conn., /s" for count in counts)
        + " | p50 at 1, ms | p99 at 16, ms | p99 at half its peak, ms | CPU s per million | PSS, MB | errors |",
        "|---|---|" + "---|" * (len(counts) + 6),
    ]  # fmt: skip
    for name, system in results["systems"].items():
        lines.append(_row(results, name, system, counts))
    for name, system in results["systems"].items():
        lines += [f"\n{name} failed in {failure}" for failure in system.get("failures", [])]
    lines += _late(results)
    lines += ["", "| ratio or bound | needed | found | met |", "|---|---|---|---|"]
    for claim in claims(results):
        met = "not measured" if claim.met is None else "yes" if claim.met else "no"
        lines.append(f"| {claim.text} | {claim.needed} | {claim.found} | {met} |")
    if (parts := _parts(results)) is not None:
        lines += ["", *parts]
    return "\n".join(lines) + "\n"


def _row(results: Results, name: str, system: Mapping[str, Any], counts: Sequence[int]) -> str:
    def cell(value: Callable[[Run], float | None], digits: int, **of: object) -> str:
        found = spread(results, name, value, **of)
        return found.text(digits) if found else "-"

    versions = ", ".join(
        f"{package} {number}" for package, number in system["versions"].items() if "xgboost" not in package
    )
    runs = [run for run in system["runs"] if "errors" in run and run["kind"] != "sustained"]
    errors = sum(one["errors"] for run in runs for one in (run, *run.get("repeated", [])))
    cells = [f"{name} ({versions})", system.get("variant", "-")]
    cells += [cell(rps, 0, kind="closed", connections=count) for count in counts]
    cells += [
        cell(lambda run: run["p50_ms"], 2, kind="closed", connections=1),
        cell(lambda run: run["p99_ms"], 2, kind="closed", connections=16),
        cell(lambda run: run["p99_ms"], 2, kind="open"),
        cell(cpu_per_million, 0, kind="closed", connections=16),
        cell(memory, 0, kind="closed", connections=16),
        f"{errors}",
    ]
    return "| " + " | ".join(cells) + " |"


def _late(results: Results) -> list[str]:
    """Open loops in which the generator itself was late: discarded ones, and those shown for want of better."""
    lines: list[str] = []
    for name, system in results["systems"].items():
        for run in system["runs"]:
            late = [(one, "discarded") for one in run.get("repeated", [])]
            if (run.get("send_delay_p99_ms") or 0.0) > load.PUNCTUAL_MS:
                late.append((run, "shown, the others were later"))
            lines += [
                f"\n{name}, round {run['round']}, {run['kind']}: the generator's own 99th percentile was "
                f"{one['send_delay_p99_ms']:.1f} ms late; p99 {one['p99_ms']:.1f} ms, {one['errors']} errors, "
                f"{one['unsent']} unsent: {what}."
                for one, what in late
            ]
    return lines


def _parts(results: Results) -> list[str] | None:
    """Where our CPU goes, by part, and how far the log was behind."""
    if OURS not in results["systems"]:
        return None
    lines = [
        "| ours, closed loop | " + " | ".join((*HOT, *_APART)) + " | behind at the end | spool, MB | drained in, s |"
    ]
    lines.append("|---|" + "---|" * (len(HOT) + len(_APART) + 3))
    for count in connections_of(results):
        cells = [f"{count} connections, CPU s per million"]
        for role in (*HOT, *_APART):
            found = spread(
                results, OURS, lambda run, role=role: cpu_per_million(run, [role]), kind="closed", connections=count
            )  # type: ignore[misc]
            cells.append(found.text() if found else "-")
        for key in ("owed_at_end", "spool_mb", "drain_s"):
            found = spread(results, OURS, lambda run, key=key: run.get(key), kind="closed", connections=count)  # type: ignore[misc]
            cells.append(found.text(0 if key == "owed_at_end" else 1) if found else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write(folder: Path, results: Results) -> None:
    """serving.json, serving.md, serving.svg and serving.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "serving.md").write_text(markdown(results))
    _plot(folder, results)


def _plot(folder: Path, results: Results) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    counts = connections_of(results)
    names = [name for name in results["systems"] if spread(results, name, rps, kind="closed")]
    if not names or not counts:
        return
    names.sort(
        key=lambda name: (
            -max(
                one.median for count in counts if (one := spread(results, name, rps, kind="closed", connections=count))
            )
        )
    )
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.7 + 0.62 * len(names)), layout="constrained")
    height = 0.8 / len(counts)
    shades = [pyplot.get_cmap("Blues")(0.35 + 0.55 * i / max(1, len(counts) - 1)) for i in range(len(counts))]
    for axes, value, label in (
        (left, rps, "predictions a second, closed loop"),
        (right, lambda run: run["p99_ms"], "p99, ms, closed loop"),
    ):
        for i, count in enumerate(counts):
            for y, name in enumerate(names):
                found = spread(results, name, value, kind="closed", connections=count)
                if found is None:
                    continue
                error = [[found.median - found.low], [found.high - found.median]]
                at = y + (i - (len(counts) - 1) / 2) * height
                shown = f"{count} connection{'s' if count != 1 else ''}" if y == 0 else None
                axes.barh(
                    at, found.median, height * 0.92, color=shades[i], xerr=error, label=shown, error_kw={"lw": 0.8}
                )
                text = f"{found.median:,.0f}" if found.median >= 100 else f"{found.median:.1f}"
                axes.text(found.high * 1.06, at, text, va="center", fontsize=7)
        axes.set_xscale("log")
        axes.set_xlim(right=axes.get_xlim()[1] * 2.2)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8, loc="lower right", frameon=False)
    machine = results["machine"]
    figure.suptitle(
        f"One XGBoost model, one row a request, {machine['cores']} cores, {machine['date'][:10]}", fontsize=10
    )
    figure.savefig(folder / "serving.svg")
    figure.savefig(folder / "serving.png", dpi=110)
    pyplot.close(figure)
