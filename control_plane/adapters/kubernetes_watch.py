"""What the cluster has of one kind and label: listed once, then watched, so that looking costs no call."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import structlog

from control_plane.adapters.kubernetes import Cluster, Expired, Kind, Object, pause
from control_plane.errors import ClusterUnavailable, ControlPlaneError

_SHORT_S: Final = 1.0  # a watch that ends sooner counts as a failure: it is begun anew after a pause
_STALE_S: Final = 30.0  # without the cluster's word for longer, what was seen is no longer said
_FIRST_S: Final = 5.0  # how long the first look waits for the first list

log = structlog.get_logger()


class Watched:
    """Begun by the first look. `aclose` ends it."""

    def __init__(self, cluster: Cluster, kind: Kind, labels: str) -> None:
        self._cluster, self._kind, self._labels = cluster, kind, labels
        self._objects: dict[str, Object] = {}
        self._listed = asyncio.Event()
        self._lost_at: float | None = time.monotonic()  # None: in touch
        self._why = "it was not asked yet"
        self._task: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def all(self) -> Mapping[str, Object]:
        """By name, as last heard. Raises ClusterUnavailable if that is too long ago, or never was."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"watch {self._kind.plural}")
        if not self._listed.is_set():
            try:
                async with asyncio.timeout(_FIRST_S):
                    await self._listed.wait()
            except TimeoutError:
                raise ClusterUnavailable(f"The cluster does not list its {self._kind.plural}: {self._why}") from None
        if self._lost_at is not None and time.monotonic() - self._lost_at > _STALE_S:
            raise ClusterUnavailable(f"The cluster has not been heard of for {_STALE_S:.0f} s: {self._why}")
        return self._objects

    def put(self, found: Object) -> None:
        """What a call of ours was answered with, which the watch tells only later."""
        self._objects[_name(found)] = found

    def drop(self, name: str) -> None:
        self._objects.pop(name, None)

    async def _run(self) -> None:
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                listed, since = await self._cluster.list(self._kind, labels=self._labels)
                self._objects = {_name(entry): entry for entry in listed}
                self._listed.set()
                while True:
                    begun, self._lost_at = time.monotonic(), None
                    since = await self._follow(since)
                    if time.monotonic() - begun < _SHORT_S:
                        raise ClusterUnavailable("the watch ended as soon as it had begun")
                    failures = 0
            except Expired:
                failures = 0 if time.monotonic() - begun > _SHORT_S else failures + 1
            except ControlPlaneError as exc:
                failures = 1 if time.monotonic() - begun > _SHORT_S else failures + 1
                self._why = exc.detail
                log.warning("cluster cannot be watched", kind=self._kind.plural, failures=failures, why=exc.detail)
            self._lost_at = self._lost_at or time.monotonic()
            await asyncio.sleep(pause(failures) if failures else 0)

    async def _follow(self, since: str) -> str:
        """One watch, to its end; the version to go on from."""
        async for event, found in self._cluster.watch(self._kind, self._labels, since):
            since = str(found["metadata"]["resourceVersion"])
            match event:
                case "ADDED" | "MODIFIED":
                    self._objects[_name(found)] = found
                case "DELETED":
                    self._objects.pop(_name(found), None)
                case _:  # a bookmark: nothing but a version to go on from
                    continue
        return since


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])


def labelled(objects: Mapping[str, Object], label: str, value: str) -> Iterator[Mapping[str, Any]]:
    """Those of them that carry the label."""
    for entry in objects.values():
        labels = cast("Mapping[str, str]", entry["metadata"].get("labels") or {})
        if labels.get(label) == value:
            yield entry
