"""Why pods are not ready, in the cluster's own words."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from control_plane.adapters import kubernetes
from control_plane.adapters.kubernetes import Cluster, Object
from control_plane.errors import ControlPlaneError

_MOST: Final = 5  # sentences in one error
_USUAL: Final = frozenset({"ContainerCreating", "PodInitializing"})


async def troubles(cluster: Cluster, name: str, labels: str) -> str | None:
    """What containers wait for or died of, and the warnings about everything called `name` or `name`-..., newest last.

    None: nothing is wrong as far as the cluster says. A cluster that cannot be asked is no trouble of theirs.
    """
    try:
        pods, _ = await cluster.list(kubernetes.POD, labels=labels)
        events, _ = await cluster.list(kubernetes.EVENT, fields="type=Warning")
    except ControlPlaneError as exc:
        return f"the cluster does not say why: {exc.detail}"
    said = [*_of_containers(pods), *_of_events(events, name)]
    return "; ".join(list(dict.fromkeys(said))[-_MOST:]) or None


def _of_containers(pods: Iterable[Object]) -> Iterator[str]:
    for pod in pods:
        status = cast(Object, pod.get("status") or {})
        for part in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            state, last = cast(Object, part.get("state") or {}), cast(Object, part.get("lastState") or {})
            waiting = cast("dict[str, Any]", state.get("waiting") or {})
            ended = cast("dict[str, Any]", state.get("terminated") or last.get("terminated") or {})
            if waiting and waiting.get("reason") not in _USUAL:
                yield f"{part['name']}: {waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
            if ended.get("exitCode"):
                last_words = str(ended.get("message") or "").strip()
                yield f"{part['name']} ended with {ended['exitCode']}: {last_words}".rstrip(": ")


def _of_events(events: Iterable[Object], name: str) -> Iterator[str]:
    def at(event: Object) -> str:
        return str(event.get("lastTimestamp") or event.get("eventTime") or "")

    for event in sorted(events, key=at):
        about = str(cast(Object, event.get("involvedObject") or {}).get("name") or "")
        if about == name or about.startswith(f"{name}-"):
            times = f" ({event['count']} times)" if int(event.get("count") or 1) > 1 else ""
            yield f"{event.get('reason')}: {event.get('message')}{times}"
