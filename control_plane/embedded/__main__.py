"""`python -m control_plane.embedded [--detached | stop]`: run the stack, or stop the one that runs."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time

from control_plane.embedded import checks, config, layout, leftovers, lock, logs, postgres, stack
from control_plane.embedded.child import Spec
from control_plane.embedded.config import CannotStart, Config
from control_plane.embedded.layout import Layout
from control_plane.embedded.supervisor import Supervisor

REFUSED, RUNNING = 2, 3  # exit codes: nothing was started
_STOP_WITHIN_S = 45.0  # a supervisor bounds its own stop to 30 s


def main() -> int:
    logs.configure()
    os.umask(0o077)
    try:
        settings = config.read(os.environ)
        if "stop" in sys.argv[1:]:
            return _stop(settings)
        return _run(settings, detached="--detached" in sys.argv[1:])
    except CannotStart as refusal:
        for reason in refusal.reasons:
            _say(reason)
        return REFUSED


def _run(settings: Config, *, detached: bool) -> int:
    """`detached`: once nothing can refuse the start any more, all output goes to the log file."""
    if reasons := checks.home(settings):
        raise CannotStart(*reasons)
    places = layout.of(settings.home)
    try:
        layout.create(places)
    except OSError as error:
        raise CannotStart(f"{error}: set MLCP_HOME to a folder you own") from error
    with lock.take(places) as holder:
        if holder is not None:
            _say(f"already running (pid {holder}) with MLCP_HOME={settings.home}")
            return RUNNING
        leftovers.stop(places)
        if reasons := checks.resources(settings):
            raise CannotStart(*reasons)
        server = postgres.locate(places.home, places.postgres_sockets, wanted_user=settings.postgres_user)
        env = stack.environments(settings, places, server, stack.router_token(places), os.environ)
        specs = stack.specs(settings, places, server, env)
        _forget_last_run(places)
        if detached:
            _log_to_file(places)
        return asyncio.run(_supervise(settings, places, specs, env))


async def _supervise(settings: Config, places: Layout, specs: tuple[Spec, ...], env: stack.Environments) -> int:
    supervisor = Supervisor(settings, places, specs, env)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    return await supervisor.run()


def _stop(settings: Config) -> int:
    """Also ends what a killed supervisor has left. Exit code 0 when nothing runs any more."""
    places = layout.of(settings.home)
    if not places.run.exists():
        _say(f"nothing runs with MLCP_HOME={settings.home}")
        return 0
    until, asked = time.monotonic() + _STOP_WITHIN_S, False
    while time.monotonic() < until:
        with lock.take(places) as holder:
            if holder is None:
                left = leftovers.stop(places)
                _say("stopped" if asked or left else f"nothing runs with MLCP_HOME={settings.home}")
                return 0
            if not asked and holder:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder, signal.SIGTERM)
                asked = True
        time.sleep(0.1)
    _say(f"the supervisor does not end; see {places.log('supervisor')}")
    return 1


def _forget_last_run(places: Layout) -> None:
    """Counters and readiness of processes that are gone."""
    for folder in (places.metrics, places.ready):
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    for file in (places.status, places.bootstrap):
        file.unlink(missing_ok=True)


def _log_to_file(places: Layout) -> None:
    with logs.open_for(places.log("supervisor")) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _say(sentence: str) -> None:
    sys.stderr.write(f"mlcp: {sentence}\n")


if __name__ == "__main__":
    sys.exit(main())
