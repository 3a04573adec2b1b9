"""Who goes first where processors are short, also where the kernel schedules by session."""

import contextlib
import os
from pathlib import Path


def of_session(niceness: int, leader: int = 0) -> None:
    """Give a session's leader, and whoever else is in its group, this niceness, -20..19. `leader`: 0 is the caller.

    Where the kernel groups what it schedules by session (sched(7), autogroup), niceness only counts within one, and a
    session as a whole has a niceness of its own. Nothing happens to a leader that is gone, and where a user may not
    ask for less than 0.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PGRP, leader, niceness)
        Path(f"/proc/{leader or 'self'}/autogroup").write_text(str(niceness))
