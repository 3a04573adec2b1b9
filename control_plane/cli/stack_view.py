"""How the stack looks in a terminal: progress of a start, the table of processes."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control_plane.cli.console import table
from control_plane.cli.stack_state import Status

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKS = {"pending": ("·", "dim"), "running": ("…", "yellow"), "done": ("✓", "green"), "failed": ("✗", "bold red")}


class Progress:
    """Shows a start as it goes: live in a terminal, a line per event elsewhere. Use as a context manager."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8)
        self._fancy = self._console.is_terminal
        self._said: set[str] = set()
        self._last = Status({}, alive=False)
        self._began = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._fancy:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._fancy:
            self._live.update(_steps(self._last))
            self._live.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def show(self, status: Status) -> None:
        self._last = status
        if self._fancy:
            self._live.update(_steps(status, self.seconds))
            return
        for step in status.document.get("steps") or ():
            if step["state"] in ("done", "failed", "running") and (step["state"] != "running" or step["detail"]):
                self._once(f"{step['name']}: {step['detail'] or step['state']}")

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            sys.stdout.write(f"{self.seconds:5.1f} s  {line}\n")
            sys.stdout.flush()


def _steps(status: Status, seconds: float | None = None) -> "RenderableType":
    """With `seconds`, also what is waited for."""
    from rich.console import Group
    from rich.spinner import Spinner
    from rich.text import Text

    lines: list[RenderableType] = []
    for step in status.document.get("steps") or ():
        mark, style = _MARKS.get(step["state"], _MARKS["pending"])
        lines.append(Text.assemble(("  " + mark + " ", style), step["name"], ("  " + step["detail"], "dim")))
    if seconds is not None:
        waiting = status.document.get("waiting_for") or "the supervisor"
        lines.append(Spinner("dots", Text(f"waiting for {waiting} · {seconds:.0f} s"), style="cyan"))
    return Group(*lines)


def processes(status: Status) -> "RenderableType":
    """Fits 80 columns."""
    rows = [
        (
            process["name"],
            process["state"],
            _place(process),
            _memory(process),
            _uptime(process),
            process["restarts"] or "",
        )
        for process in status.processes
    ]
    return table(("process", "state", "listens on", "#memory", "#uptime", "#restarts"), rows)


def summary(status: Status, home: Path) -> str:
    if not status.alive:
        return f"The control plane does not run (MLCP_HOME={home}). Start it with: mlcp up"
    total = status.document.get("pss_mb")
    memory = f", {total:.0f} MB of memory" if isinstance(total, int | float) else ""
    waiting = status.document.get("waiting_for")
    rest = f", waiting for {waiting}" if waiting and status.state == "starting" else ""
    error = f". {status.document['error']}" if status.document.get("error") else ""
    return f"The control plane is {status.state}{memory}{rest}{error}"


def welcome(status: Status, home: Path, seconds: float) -> str:
    """What to do next, ready to be copied."""
    urls: Mapping[str, str] = status.document.get("urls") or {}
    router = urls.get("predict", "").partition("/ml/")[0]
    names = [step["name"] for step in status.document.get("steps") or () if step["detail"] == "answers"]
    lines = [
        f"The control plane is ready after {seconds:.0f} s.",
        "",
        f"  admin API    {urls.get('api', '')}",
        f"  predictions  {urls.get('predict', '')}",
        f"  MLflow       {urls.get('mlflow', '')}",
        f"  keys         {home / 'keys'}",
    ]
    if names:
        key = f'-H "Authorization: Bearer $(cat {home / "keys" / "predictor.key"})"'
        lines += [
            "",
            f"A prediction of {names[0]}, with its own example as the body:",
            "",
            f"  curl -s {router}/ml/{names[0]}/example {key} |",
            f"    curl -s {router}/ml/{names[0]}/predict {key} \\",
            '      -H "Content-Type: application/json" -d @-',
        ]
    return "\n".join(lines)


def _place(process: Mapping[str, Any]) -> str:
    if process.get("port"):
        return f":{process['port']}"
    return Path(process["socket"]).name if process.get("socket") else ""


def _memory(process: Mapping[str, Any]) -> str:
    size = process.get("pss_mb") if process.get("pss_mb") is not None else process.get("rss_mb")
    return "" if size is None else f"{size:.0f} MB"


def _uptime(process: Mapping[str, Any]) -> str:
    if not process.get("started_at"):
        return ""
    seconds = max(0.0, time.time() - process["started_at"])
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
