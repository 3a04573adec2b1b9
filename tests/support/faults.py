"""`python -m tests.support.faults`: a reconciler that dies, or stops, of its own at the moment FAULT names.

FAULT is HOW@POINT: how is kill or stop (SIGKILL, SIGSTOP to itself), and point one of

    written     a rollout's move and its audit row are written, the transaction is open
    committed   the move is committed, no snapshot carries it
    saved       the snapshot that carries it is in Postgres, not in Redis
    published   routers were told; that they were is not noted
"""

import os
import signal
from typing import Any

from sqlalchemy import event

from control_plane.adapters import bus
from control_plane.reconciler import __main__ as reconciler
from control_plane.reconciler import reconcile_snapshot
from control_plane.services import cutover

POINTS = ("written", "committed", "saved", "published")
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def main() -> None:
    how, _, point = os.environ["FAULT"].partition("@")
    assert point in POINTS
    said: set[str] = set()  # a stopped one that is continued goes on

    def blow(at: str) -> None:
        if at == point and not said:
            said.add(at)
            os.kill(os.getpid(), _SIGNALS[how])

    move, save, publish, told = cutover.move, reconcile_snapshot._save, bus.publish_snapshot, reconcile_snapshot._told
    carries: list[object] = []

    async def moving(session: Any, *args: Any, **more: Any) -> Any:
        saved = await move(session, *args, **more)
        blow("written")
        event.listen(session.sync_session, "after_commit", lambda _: blow("committed"), once=True)
        return saved

    async def saving(context: Any, document: Any, *args: Any) -> None:
        await save(context, document, *args)
        carries[:] = args[4]  # the states that are not published

    async def publishing(*args: Any) -> None:
        if carries:
            blow("saved")
        await publish(*args)

    async def telling(context: Any, states: Any) -> None:
        if states:
            blow("published")
        await told(context, states)

    cutover.move, bus.publish_snapshot = moving, publishing
    reconcile_snapshot._save, reconcile_snapshot._told = saving, telling
    reconciler.main()


if __name__ == "__main__":
    main()
