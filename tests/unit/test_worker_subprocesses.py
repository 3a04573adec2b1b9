"""Processes of jobs, as the worker starts them."""

import os
import sys
from pathlib import Path

from control_plane.worker import subprocesses
from tests.support.processes import niceness_of_session


async def test_a_job_gives_way_to_everything_that_answers_somebody(tmp_path: Path) -> None:
    """Before it imports anything, and where niceness only counts within a session, in that way, too."""
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    async with subprocesses.started(argv, log=tmp_path / "job.log", env={}) as child:
        pid = child.process.pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == 10
        assert niceness_of_session(pid) in {10, None}
