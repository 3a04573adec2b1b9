"""Garbage collection of a process that has started."""

import gc


def collect_seldom(after: int) -> None:
    """From now on only when `after` more objects have been made than freed, and never again of what is there now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(after, 20, 100)
