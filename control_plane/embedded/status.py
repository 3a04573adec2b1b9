"""`run/status.json`: what everybody may know about the stack, for `mlcp status`, `doctor`, `up` and the deployer."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from control_plane.embedded.child import Child, State
from control_plane.embedded.processes import Memory


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the progress display."""

    name: str
    state: str  # pending | running | done | failed
    detail: str = ""


def step_of(child: Child) -> Step:
    if child.ready.is_set():
        return Step(child.spec.name, "done")
    match child.state:
        case State.FAILED:
            return Step(child.spec.name, "failed", f"see {child.log_path}")
        case State.STARTING | State.READY:
            return Step(child.spec.name, "running")
        case State.BACKOFF:
            return Step(child.spec.name, "running", f"ended with {child.last_exit}, starts again")
        case State.STOPPED:
            return Step(child.spec.name, "pending")


def waiting_for(children: Sequence[Child], steps: Iterable[Step], *, now: float) -> str:
    """What a start that is not over waits for, to be read after "waiting for"."""
    for child in children:
        if not child.ready.is_set() and child.state is not State.STOPPED:
            since = f" ({now - child.started_at:.0f} s)" if child.started_at else ""
            what = "to finish" if child.spec.once else "to answer" if child.spec.port else "to be ready"
            if child.spec.name != "bootstrap":
                return f"{child.spec.name} {what}{since}"
    running = next((step for step in steps if step.state == "running"), None)
    return f"{running.name}: {running.detail}" if running and running.detail else "the models to answer"


def process_row(child: Child, memory: Memory | None, *, id: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": child.spec.name, "state": child.state, "pid": child.pid}
    row |= {"port": child.spec.port, "socket": child.spec.socket}
    row |= {"rss_mb": memory.rss_mb if memory else None, "pss_mb": memory.pss_mb if memory else None}
    row |= {"started_at": child.started_at if child.pid else None, "restarts": child.restarts}
    row |= {"last_exit": child.last_exit, "log": str(child.log_path)}
    return row | ({"id": id} if id else {})


def document(
    *,
    supervisor_pid: int,
    state: str,
    waiting: str,
    steps: Iterable[Step],
    error: str | None,
    urls: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
    pss_mb: float | None,
) -> dict[str, Any]:
    """`pss_mb` is the proportional memory of the whole stack, the supervisor included."""
    head: dict[str, Any] = {"supervisor_pid": supervisor_pid, "state": state, "waiting_for": waiting}
    head |= {"steps": [asdict(step) for step in steps], "error": error, "at": time.time(), "urls": dict(urls)}
    return head | {"pss_mb": pss_mb, "processes": list(rows)}
