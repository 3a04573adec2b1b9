"""Verified artifact trees on this host's disk, one folder per digest: $MLCP_HOME/cache/artifacts/<hex>/.

A folder appears whole or not at all. What lies there may still be tampered with afterwards; servers verify again before
they load.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from control_plane.adapters.registry import Registry
from control_plane.domain import registry as domain
from control_plane.errors import InvalidInput

_ABANDONED_S = 3_600  # a download this old was cut off by the death of its process


class ArtifactCache:
    """`home`: MLCP_HOME."""

    def __init__(self, home: Path, registry: Registry) -> None:
        self._root = home / "cache" / "artifacts"
        self._registry = registry
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, model: str, version: str, digest: str, *, native: bool) -> Path:
        """The tree with this digest, fetched if it is not here or no longer what it was.

        Raises InvalidInput if MLflow's artifact is not the one that was registered.
        """
        folder = self._folder(digest)
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if folder.is_dir() and await asyncio.to_thread(_digest_of, folder) == digest:
                os.utime(folder)  # used: see prune
                return folder
            async with self._fetched(model, version, native=native) as (tree, found):
                if found != digest:
                    raise InvalidInput(
                        f"The artifact of {model} {version} is not the one that was registered: "
                        f"recorded {digest}, found {found or 'nothing'}.",
                        expected=digest,
                        found=found,
                    )
                await asyncio.to_thread(_put, tree, folder)
        return folder

    async def discover(self, model: str, version: str, *, native: bool, keep: bool) -> str | None:
        """The digest of an artifact nobody recorded one for; None if it has no files. `keep`: it stays here."""
        async with self._fetched(model, version, native=native) as (tree, found):
            if keep and found is not None and not self._folder(found).exists():
                await asyncio.to_thread(_put, tree, self._folder(found))
            return found

    async def tidy(self) -> None:
        """Remove downloads that were cut off."""
        for left in self._root.glob(".fetch-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    await asyncio.to_thread(shutil.rmtree, left)

    async def prune(self, needed: frozenset[str], *, unused: timedelta) -> list[str]:
        """Remove trees whose digest is not in `needed` and that nobody has asked for that long; their digests."""
        gone: list[str] = []
        for folder in sorted(self._root.glob("[0-9a-f]*")):
            digest = f"sha256:{folder.name}"
            if digest in needed:
                continue
            async with self._locks.setdefault(digest, asyncio.Lock()):
                with contextlib.suppress(OSError):  # it is being used, or somebody else was faster
                    if time.time() - folder.stat().st_mtime > unused.total_seconds():
                        await asyncio.to_thread(shutil.rmtree, folder)
                        gone.append(digest)
        return gone

    def _folder(self, digest: str) -> Path:
        return self._root / digest.removeprefix("sha256:")

    @asynccontextmanager
    async def _fetched(self, model: str, version: str, *, native: bool) -> AsyncGenerator[tuple[Path, str | None]]:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self._root) as temporary:
            tree = Path(temporary) / "tree"
            under = domain.NATIVE_FOLDER if native else ""
            files = await self._registry.download(model, version, tree, under=under)
            yield tree, domain.tree_digest(files) if files else None


def _digest_of(folder: Path) -> str | None:
    files: list[tuple[str, str]] = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                files.append((path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()))
    return domain.tree_digest(files) if files else None


def _put(tree: Path, folder: Path) -> None:
    """Move a verified tree to its place; what lies there, a damaged copy, goes first."""
    if folder.exists():
        shutil.rmtree(folder)
    tree.rename(folder)
