"""The code of the version before, out of the history of this checkout; and whether there is one."""

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def previous() -> str | None:
    """MLCP_TEST_PREVIOUS, else the tag of the release before, else the commit before the newest migration."""
    if given := os.environ.get("MLCP_TEST_PREVIOUS"):
        return given
    if tag := _git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^"):
        return tag
    newest = max((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest.relative_to(ROOT)))
    return _git("rev-parse", "--verify", f"{added}^") if added else None


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
