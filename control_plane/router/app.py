"""Which request goes where. The table of paths is made once per snapshot."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from control_plane.adapters.metrics import CONTENT_TYPE
from control_plane.errors import NotFound, Unavailable
from control_plane.router import calls, oip, pages, traces
from control_plane.router import request as requests
from control_plane.router.auth import Keys
from control_plane.router.forward import MakePrediction, Predict
from control_plane.router.outcomes import Outcomes
from control_plane.router.passthrough import Batch, Explain
from control_plane.router.problems import Refused
from control_plane.router.request import Request
from control_plane.router.routes import Arm, Route, Routes
from control_plane.router.spool import Spool
from control_plane.router.tools import Tools

Table = Mapping[bytes, Mapping[bytes, requests.Route]]  # path, method
_HTML: Final = b"text/html; charset=utf-8"
_HEAD: Final = calls.request_head("GET", "/ready")


class Get:
    """A GET without a body. The answer is (status, body, content type)."""

    streams = False
    max_body = 65_536

    def __init__(self, answer: Callable[[], tuple[int, bytes, bytes]]) -> None:
        self._answer = answer

    def handle(self, request: Request) -> None:
        request.respond(*self._answer())


class GetLater:
    """A GET that has to ask somebody first."""

    streams = False
    max_body = 65_536

    def __init__(self, app: "App", answer: Callable[[], Coroutine[Any, Any, tuple[int, bytes, bytes]]]) -> None:
        self._app, self._answer = app, answer

    def handle(self, request: Request) -> None:
        async def work() -> None:
            request.respond(*await self._answer())

        self._app.spawn(request, work())


class UnknownModel:
    """Any path of a model that is not in the snapshot. A key learns of the models it may use, nobody of others."""

    streams = False
    max_body = 65_536

    def __init__(self, name: str, method: bytes, routes: Routes) -> None:
        self._name, self._method, self._routes = name, method, routes

    def handle(self, request: Request) -> None:
        detail = f"There is no model {self._name[:100]}."
        if self._method == b"POST":
            grant = self._routes.keys.grant(request.headers.get(b"authorization"), self._name)
            if visible := sorted(name for name in self._routes.models if grant.allows(name)):
                detail += f" This key may use {', '.join(visible)}."
        raise Refused.of(NotFound, detail)


class App:
    """The routes of one worker; `apply` replaces them between two requests."""

    def __init__(self, tools: Tools, outcomes: Spool) -> None:
        self._tools, self._outcomes = tools, outcomes
        self._routes: Routes | None = None
        self.spawn: Callable[[Request, Coroutine[Any, Any, None]], None] = _nowhere  # set by the worker's listener
        self._fixed: Table = {
            b"/health": _get(Get(lambda: (200, b'{"status":"ok"}', requests.JSON))),
            b"/ready": _get(Get(self._ready)),
            b"/metrics": _get(GetLater(self, self._metrics)),
            **self._server_paths(b"/v2"),
        }
        self._table: Table = self._fixed

    def apply(self, routes: Routes) -> None:
        table: dict[bytes, Mapping[bytes, requests.Route]] = dict(self._fixed)
        for route in routes.models.values():
            table |= self._paths(route, routes.keys)
        self._routes, self._table = routes, table

    def route(self, method: bytes, path: bytes) -> requests.Route:
        """Raises Refused: 404 or 405, or 503 while there is no snapshot at all."""
        methods = self._table.get(path)
        if methods is not None:
            if (route := methods.get(method)) is not None:
                return route
            names = ", ".join(name.decode() for name in methods)
            raise Refused(
                405,
                "method-not-allowed",
                "Method not allowed",
                f"Allowed here: {names}.",
                headers=b"allow: %b\r\n" % names.encode(),
            )
        shown = path.decode("ascii", "replace")
        _, _, rest = shown.partition("/ml/")
        name = rest.partition("/")[0]
        if not name or not shown.startswith("/ml/"):
            raise Refused.of(NotFound, f"There is no {shown[:100]} here.")
        if self._routes is None:
            raise Refused.of(Unavailable, "This router has no snapshot yet.")
        if name in self._routes.models:
            raise Refused.of(NotFound, f"{name} has no {shown[:100]}.")
        return UnknownModel(name, method, self._routes)

    def _paths(self, route: Route, keys: Keys) -> Table:
        base = f"/ml/{route.name}".encode()
        shown = route.default.target if route.default is not None else None

        def example() -> tuple[int, bytes, bytes]:
            body = pages.example(shown)
            if body is None:
                raise Refused.of(NotFound, f"{route.name} has no example: no version that answers gave one.")
            return 200, body, requests.JSON

        tracer = self._tools.tracer
        traced = None if tracer is None else traces.predictions(tracer)
        explain = Explain(route, keys, self.spawn)
        return {
            **self._server_paths(base + b"/v2"),
            **self._tensor_paths(b"/v2", route, keys, traced),
            **self._tensor_paths(base + b"/v2", route, keys, traced),
            base + b"/predict": {b"POST": Predict(route, keys, self._tools, traced)},
            base + b"/outcomes": {b"POST": Outcomes(route.name, keys, self._outcomes, self._tools.fresh_id)},
            base + b"/explain": {b"POST": explain},
            base + b"/predict/explain": {b"POST": explain},
            base + b"/batch_predict": {b"POST": Batch(route, keys, self.spawn)},
            base + b"/health": _get(GetLater(self, lambda: _health(route))),
            base + b"/example": _get(Get(example)),
            base + b"/openapi.json": _get(
                Get(lambda: (200, pages.openapi(route.name, route.source, shown), requests.JSON))
            ),
            base + b"/docs": _get(
                Get(lambda: (200, pages.docs(route.name, route.source, shown), b"text/html; charset=utf-8"))
            ),
        }

    def adapt(self) -> None:
        """Take on as much of each model as can be answered in time. Called a few times a second."""
        for route in self._routes.models.values() if self._routes is not None else ():
            answered, seconds = route.timings.total
            most = route.source.max_in_flight
            route.load.adapt(answered, seconds, deadline_s=route.deadline_s, most=most)

    def _server_paths(self, base: bytes) -> Table:
        """The Open Inference Protocol's paths of a server: this one, whatever model it is asked about."""

        def ready() -> tuple[int, bytes, bytes]:
            self._ready()
            return 200, b'{"ready":true}', requests.JSON

        return {
            base: _get(Get(lambda: (200, oip.SERVER, requests.JSON))),
            base + b"/health/live": _get(Get(lambda: (200, b'{"live":true}', requests.JSON))),
            base + b"/health/ready": _get(Get(ready)),
        }

    def _tensor_paths(self, base: bytes, route: Route, keys: Keys, traced: MakePrediction | None) -> Table:
        """... and of one model: routed, and by version or alias."""

        found: dict[bytes, Mapping[bytes, requests.Route]] = {}
        aliases = route.source.aliases
        for named in (None, *route.by_version, *route.source.sleeping, *aliases):
            version = None if named is None else aliases.get(named, named)
            path = b"%b/models/%b" % (base, route.name.encode())
            path += b"" if named is None else b"/versions/%b" % named.encode()
            if version is None or version in route.by_version:
                found[path] = _get(Get(partial(_metadata, route, version)))
                found[path + b"/ready"] = _get(GetLater(self, partial(_model_ready, route, version)))
            found[path + b"/infer"] = {b"POST": oip.Infer(route, keys, self._tools, version, traced)}
        return found

    def _ready(self) -> tuple[int, bytes, bytes]:
        if self._routes is None:
            raise Refused.of(Unavailable, "This router has no snapshot yet.")
        body = {"status": "ready", "epoch": self._routes.epoch, "revision": self._routes.revision}
        return 200, msgspec.json.encode(body), requests.JSON

    async def _metrics(self) -> tuple[int, bytes, bytes]:
        self._tools.meter.flush()
        return 200, await asyncio.to_thread(self._tools.meter.render), CONTENT_TYPE.encode()


async def _is_ready(arm: Arm) -> bool:
    try:
        status, _ = await calls.fetch(arm.server.pool, _HEAD, seconds=1.0)
    except ConnectionError:
        return False
    return status == 200


def _metadata(route: Route, version: str | None) -> tuple[int, bytes, bytes]:
    return 200, oip.metadata(route, version), requests.JSON


async def _model_ready(route: Route, version: str | None) -> tuple[int, bytes, bytes]:
    ready = (await _health(route))[0] == 200 if version is None else await _is_ready(route.by_version[version])
    return 200 if ready else 503, msgspec.json.encode({"name": route.name, "ready": ready}), requests.JSON


async def _health(route: Route) -> tuple[int, bytes, bytes]:
    """Asks the servers that take part in answering. 503 when the one that carries most of the traffic is not ready."""
    arms = {arm.target.id: arm for arm in (*route.arms, *([route.pinned_to] if route.pinned_to else []))}

    states = dict(zip(arms, await asyncio.gather(*(_is_ready(arm) for arm in arms.values())), strict=True))
    main = route.pinned_to or route.default
    well = main is not None and states[main.target.id]
    body = {
        "model": route.name,
        "status": "unavailable" if not well else "ok" if all(states.values()) else "degraded",
        "pinned": route.pinned_to is not None,
        "versions": [
            {"version": arm.target.version, "variant": arm.variant, "ready": states[arm.target.id]}
            for arm in arms.values()
        ],
    }
    return (200 if well else 503), msgspec.json.encode(body), requests.JSON


def _get(route: requests.Route) -> dict[bytes, requests.Route]:
    return {b"GET": route, b"HEAD": route}


def _nowhere(request: Request, work: Coroutine[Any, Any, None]) -> None:
    work.close()
    raise RuntimeError("the app has no listener yet")
