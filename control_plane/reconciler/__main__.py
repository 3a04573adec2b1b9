"""`python -m control_plane.reconciler`: makes MLflow, model servers and the snapshot agree with Postgres."""

import asyncio
import contextlib
import signal

from control_plane.reconciler import loop
from control_plane.settings import ReconcilerSettings
from control_plane.telemetry import configure_logging


async def _main(settings: ReconcilerSettings) -> None:
    running = asyncio.create_task(loop.run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> None:
    settings = ReconcilerSettings()  # pyright: ignore[reportCallIssue]  (its fields come from the environment)
    configure_logging("reconciler", level=settings.log_level)
    asyncio.run(_main(settings))


if __name__ == "__main__":
    main()
