"""The model servers of a host: one for each file in `run/wanted`, started, kept running, and stopped to match."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from control_plane.embedded import realtime, wanted
from control_plane.embedded.child import GOES_FIRST, Child, Spec
from control_plane.embedded.layout import Layout
from control_plane.embedded.wanted import Wanted

log = logging.getLogger(__name__)

_EVERY_S = 0.1
_AGAIN_S = 2.0  # looked through again even when the folder seems unchanged
# All that model servers get of the user's environment, since it is open to foreign model code. PIP_ and UV_ find the
# packages of its own environment; the launcher keeps them from the model.
_TOLD = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "MLCP_LOG_LEVEL"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
_TOLD_BEGINNING = ("LC_", "XDG_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "OTEL_", "PIP_", "UV_")


class ModelServers:
    """`env`: what every server is told. `changed`: called whenever one starts, gets ready or ends."""

    def __init__(self, layout: Layout, env: Mapping[str, str], changed: Callable[[], None]) -> None:
        self._layout, self._env, self._changed = layout, env, changed
        self._known: dict[str, tuple[Wanted, Child, asyncio.Task[None]]] = {}
        self._seen: tuple[int, float] = (-1, 0.0)

    @property
    def children(self) -> Mapping[str, Child]:
        """By the id of the wish."""
        return {id_: child for id_, (_, child, _) in self._known.items()}

    @property
    def running(self) -> list[tuple[Child, asyncio.Task[None]]]:
        return [(child, task) for _, child, task in self._known.values()]

    async def follow(self) -> None:
        """Until cancelled, which stops no server."""
        while True:
            try:
                self._look()
            except OSError:
                log.exception("the wanted processes cannot be read")
            await asyncio.sleep(_EVERY_S)

    def _look(self) -> None:
        now, changed = time.monotonic(), self._layout.wanted.stat().st_mtime_ns
        if self._seen[0] == changed and now - self._seen[1] < _AGAIN_S:
            return
        self._seen = (changed, now)
        there = wanted.read(self._layout.wanted)
        for id_, (was, child, task) in list(self._known.items()):
            if there.get(id_) != was:
                child.stop()
                if task.done():
                    del self._known[id_]
                    self._changed()
                else:
                    self._seen = (-1, 0.0)  # look again soon: it is on its way out
        for id_, wish in there.items():
            if id_ not in self._known:
                process = spec(wish, self._env)
                ready_file = self._layout.ready_file(id_)
                child = Child(process, self._layout.log(process.name), ready_file, changed=self._changed)
                self._known[id_] = wish, child, asyncio.ensure_future(child.run())


def spec(wish: Wanted, env: Mapping[str, str]) -> Spec:
    """Never given up: what has failed shows as such, and the deployer decides. An environment may take minutes."""
    return Spec(
        name=wish.name,
        argv=wish.argv,
        env={**env, **dict(wish.env)},
        ready_within_s=None,
        gives_up=False,
        port=wish.port,
        socket=wish.socket,
        grace_s=wish.grace_s,
        niceness=GOES_FIRST,
        realtime=realtime.MODEL_SERVER if wish.realtime else 0,
    )


def harmless(environ: Mapping[str, str]) -> dict[str, str]:
    """What of an environment foreign model code may read: no address and no secret of ours."""
    return {name: value for name, value in environ.items() if name in _TOLD or name.startswith(_TOLD_BEGINNING)}
