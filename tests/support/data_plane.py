"""Snapshots and router processes for tests."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
import msgspec

from control_plane.contracts import frames, snapshot
from control_plane.contracts.records import PredictionRecord
from control_plane.contracts.snapshot import Arm, KeyGrant, ModelRoute, Shadow, Snapshot, Target
from control_plane.router import spool
from control_plane.router.__main__ import bind
from control_plane.router.siblings import Board
from control_plane.router.worker import serve
from control_plane.settings import RouterSettings
from tests.support.processes import free_port, running, wait_until

KEY = "test-key"
ADMIN = "admin-key"  # may pin


def target(version: str, address: str, **more: Any) -> Target:
    return Target(
        id=str(uuid5(NAMESPACE_URL, version + address)), version=version, digest="sha256:0", address=address, **more
    )


def document(
    revision: int,
    *targets: Target,
    arms: Mapping[str, tuple[int, Target]] | None = None,
    epoch: int = 1,
    model: str = "churn",
    previous: Target | None = None,
    shadows: Sequence[tuple[Target, int]] = (),
    key_rps: float | None = None,
    **route: Any,
) -> bytes:
    """A sealed snapshot of one model. Without `arms` the first target gets everything as stable.

    `key_rps`: the rate limit of KEY.
    """
    arms = arms or {"stable": (10_000, targets[0])}
    shown = {t.id: t for t in (*targets, *(t for _, t in arms.values()))}
    grants = {
        KEY: KeyGrant(key_id="k", models=("*",), rate_limit_rps=key_rps),
        ADMIN: KeyGrant(key_id="a", models=("*",), pin=True),
        "other-key": KeyGrant(key_id="o", models=("fraud*",)),
        "old-key": KeyGrant(key_id="e", models=("*",), expires_at=1.0),
    }
    made = ModelRoute(
        targets=shown,
        arms=tuple(Arm(variant=variant, weight=weight, target=t.id) for variant, (weight, t) in arms.items()),  # type: ignore[arg-type]
        salt=route.pop("salt", "salt-1"),
        previous=previous.id if previous else None,
        shadows=tuple(Shadow(target=t.id, weight=weight) for t, weight in shadows),
        **route,
    )
    return snapshot.encode(
        Snapshot(
            schema_version=snapshot.SCHEMA,
            epoch=epoch,
            revision=revision,
            created_at="2026-11-01T00:00:00Z",
            models={model: made},
            keys={sha256(key.encode()).hexdigest(): grant for key, grant in grants.items()},
        )
    )


def save(home: Path, sealed: bytes) -> None:
    """As a router keeps it."""
    folder = home / "router"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "snapshot.json").write_bytes(sealed)


@contextmanager
def router(home: Path, redis_url: str, *, workers: int = 1, **env: str) -> Iterator[str]:
    """A router process; the base URL it answers on."""
    with router_process(home, redis_url, workers=workers, **env) as (url, _):
        yield url


@contextmanager
def router_process(
    home: Path, redis_url: str, *, workers: int = 1, prefix: Sequence[str] = (), **env: str
) -> Iterator[tuple[str, int]]:
    """A router process, started by `prefix` if that is given; its base URL and the parent's pid."""
    port = free_port()
    settings = {
        "MLCP_HOME": str(home),
        "MLCP_REDIS_URL": redis_url,
        "MLCP_ROUTER_PORT": str(port),
        "MLCP_ROUTER_WORKERS": str(workers),
        "MLCP_API_URL": "http://127.0.0.1:9",
        "MLCP_READY_FILE": str(home / f"router-{port}.ready"),
        **env,
    }
    log = home / f"router-{port}.log"
    with running([*prefix, sys.executable, "-m", "control_plane.router"], log=log, env=settings) as child:

        def ready() -> bool:
            assert child.poll() is None, log.read_text()[-2000:]
            return Path(settings["MLCP_READY_FILE"]).exists()

        wait_until(ready, what="router ready")
        yield f"http://127.0.0.1:{port}", child.pid


@asynccontextmanager
async def worker(
    home: Path,
    redis_url: str,
    *,
    slot: int = 0,
    among: tuple[Board, socket.socket] | None = None,
    **settings: Any,
) -> AsyncIterator[str]:
    """One worker in this process: all of the router but its parent, and ten times as fast to start.

    `among`: the board and the listening socket it shares with others.
    """
    board, listening = (Board(1 + slot), bind("127.0.0.1", 0)) if among is None else (among[0], among[1].dup())
    port = int(listening.getsockname()[1])
    alive_read, alive_write = os.pipe()
    ready = asyncio.Event()
    given = RouterSettings.model_validate(
        {"home": home, "redis_url": redis_url, "router_port": port, "api_url": "http://127.0.0.1:9", **settings}
    )
    serving = asyncio.create_task(serve(given, listening, board, slot, alive_read, ready.set))
    try:
        starting = asyncio.create_task(ready.wait())
        await asyncio.wait([serving, starting], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        yield f"http://127.0.0.1:{port}"
    finally:
        os.close(alive_write)  # as if the parent had died: the worker drains and ends
        await serving
        os.close(alive_read)
        if among is None:
            board.close()


def client(url: str, key: str = KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=240)


def children(pid: int) -> list[int]:
    """Pids of the direct children."""
    with open(f"/proc/{pid}/task/{pid}/children") as listed:
        return [int(child) for child in listed.read().split()]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def records(home: Path) -> list[PredictionRecord]:
    """What the spools of a router's home hold, in order."""
    return [
        msgspec.json.decode(payload, type=PredictionRecord)
        for folder in sorted((home / "spool").glob("predictions-*"))
        for number in spool.segments(folder)
        for payload in frames.payloads((folder / f"{number:016d}.seg").read_bytes())
    ]
