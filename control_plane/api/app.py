"""Builds the admin API. Nothing happens at import."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from functools import cache

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from control_plane import VERSION
from control_plane.adapters import store
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.otel import Tracer
from control_plane.api import (
    ab_tests,
    approvals,
    audit,
    data_plane,
    erasures,
    health,
    jobs,
    keys,
    models,
    notices,
    outcomes,
    pages,
    policies,
    problems,
    releases,
    replays,
    reports,
    rollouts,
    webhooks,
)
from control_plane.api.door import Door
from control_plane.api.middleware import BodyLimit, RequestId, WebhookCounts, counter, webhook_counter
from control_plane.errors import ControlPlaneError, InvalidInput, RateLimited, StoreUnavailable
from control_plane.settings import ApiSettings

_CLASSIC = (health.router, models.router, releases.router, rollouts.experiments)  # also at the root, as ever
_OURS = (
    rollouts.router,
    ab_tests.router,
    replays.router,
    approvals.router,
    policies.router,
    jobs.router,
    erasures.router,
    keys.router,
    audit.router,
    reports.router,
    notices.router,
    outcomes.router,
    webhooks.router,
    data_plane.router,
)

_LONGEST_WAIT_MS = 10_000  # for another change of the same model; then 409, try again


def create_app(settings: ApiSettings, tracer: Tracer | None = None, metrics: Metrics | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, object]]:
        dsn, pooler = settings.postgres_dsn.get_secret_value(), settings.transaction_pooler
        engine = store.create_engine(dsn, pooler=pooler, lock_ms=_LONGEST_WAIT_MS)
        door = Door(settings, metrics)
        alive = metrics.alive("api", settings.metrics_host, settings.metrics_port) if metrics else nullcontext()
        try:
            async with alive:
                yield {"sessionmaker": store.sessions(engine), "settings": settings, "door": door}
        finally:
            await door.close()
            await engine.dispose()

    app = FastAPI(
        title="mlcp admin API",
        version=VERSION,
        description="Releases of machine-learning models: who answers which customer, and the proof of it. "
        "Texts hold no U+0000 and no half surrogate pairs, numbers are finite.",
        lifespan=lifespan,
    )
    problems.install(app)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(WebhookCounts, counted=webhook_counter(metrics) if metrics else None)
    app.add_middleware(RequestId, tracer=tracer, counted=counter(metrics) if metrics else None)
    app.router.routes.extend(_routes())
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """The same for every application of a process: to build them takes far longer than to answer a request."""
    everything = APIRouter(responses=problems.responses(ControlPlaneError, StoreUnavailable, InvalidInput, RateLimited))
    api = APIRouter(prefix="/api/v1")
    for router in (*_CLASSIC, *_OURS):
        api.include_router(router)
    everything.include_router(api)
    everything.mount("/pages", pages.create_pages())
    for router in _CLASSIC:
        everything.include_router(router, include_in_schema=False)
    return tuple(everything.routes)
