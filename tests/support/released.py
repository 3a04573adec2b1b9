"""The code of the version before, out of the history of this checkout; and whether there is one."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def previous() -> str | None:
    """MLCP_TEST_PREVIOUS, else the tag of the release before, else the last commit before the newest migration.

    One that could have been released: where branches met, two migrations had the same number for a while.
    """
    if given := os.environ.get("MLCP_TEST_PREVIOUS"):
        return given
    if tag := _git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^"):
        return tag
    newest = max((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest.relative_to(ROOT)))
    before = (_git("log", "--first-parent", "--format=%H", "-100", f"{added}^") or "") if added else ""
    return next((commit for commit in before.split() if _is_one_chain(commit)), None)


def _is_one_chain(commit: str) -> bool:
    listed = (_git("ls-tree", "--name-only", commit, "migrations/versions/") or "").split()
    numbers = sorted(int(found[1]) for name in listed if (found := re.search(r"/(\d+)_[^/]*\.py$", name)))
    return bool(numbers) and numbers == list(range(1, len(numbers) + 1))


def checkout(folder: Path) -> Path:
    """That code, below `folder`."""
    ref = previous()
    assert ref is not None
    there = folder / "before"
    there.mkdir()
    packed = subprocess.run(["git", "archive", ref], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(there)], input=packed, check=True)
    return there


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
