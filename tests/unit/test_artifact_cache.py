import os
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from control_plane.adapters.artifacts import ArtifactCache
from control_plane.domain.registry import tree_digest

WEEK = timedelta(days=7)


def kept(root: Path, digest: str, *, age: timedelta) -> None:
    folder = root / digest.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "weights").write_text(digest)
    at = time.time() - age.total_seconds()
    os.utime(folder, (at, at))


async def test_only_what_nobody_needs_and_nobody_asked_for_in_a_week_is_pruned(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "artifacts"
    needed, old, fresh = (f"sha256:{letter * 64}" for letter in "abc")
    kept(root, needed, age=3 * WEEK)
    kept(root, old, age=2 * WEEK)
    kept(root, fresh, age=WEEK / 2)
    (root / ".fetch-1").mkdir()  # a download under way
    cache = ArtifactCache(tmp_path, cast(Any, None))
    assert await cache.prune(frozenset({needed}), unused=WEEK) == [old]
    assert {folder.name for folder in root.iterdir()} == {needed[7:], fresh[7:], ".fetch-1"}


async def test_an_artifact_that_is_used_again_is_young_again(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "artifacts"
    content = b"x"
    digest = tree_digest([("weights", sha256(content).hexdigest())])
    folder = root / digest.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(content)
    os.utime(folder, (0, 0))
    cache = ArtifactCache(tmp_path, cast(Any, None))
    assert await cache.get("m", "1", digest, native=True) == folder
    assert await cache.prune(frozenset(), unused=WEEK) == []
