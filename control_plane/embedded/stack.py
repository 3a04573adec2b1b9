"""The processes of the embedded stack: commands, environments, order. Decides; starts nothing."""

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from control_plane.embedded import binaries, models, postgres, probes, realtime
from control_plane.embedded.child import GOES_FIRST, Spec
from control_plane.embedded.config import CannotStart, Config
from control_plane.embedded.layout import Layout
from control_plane.embedded.leftovers import MARK
from control_plane.embedded.postgres import Postgres

# Never handed down: each process gets what it needs from here.
_SECRET = frozenset(
    {
        *("MLCP_POSTGRES_DSN", "MLCP_POSTGRES_OWNER_DSN", "MLCP_REDIS_URL", "MLCP_ROUTER_TOKEN"),
        *("MLCP_API_KEY", "MLCP_PREDICT_KEY"),
    }
)
_REDIS_MEMORY = "256mb"  # above it Redis refuses writes and records stay in the spool
BOOTSTRAP = "bootstrap"


@dataclass(frozen=True, slots=True)
class Environments:
    """What each kind of process is told. The data plane is never told about the database."""

    model_servers: Mapping[str, str]  # no address, no secret
    base: Mapping[str, str]  # Postgres, Redis and MLflow
    data_plane: Mapping[str, str]
    control_plane: Mapping[str, str]


def environments(
    config: Config, layout: Layout, server: Postgres, token: str, environ: Mapping[str, str]
) -> Environments:
    added = {
        MARK: str(layout.home),
        "MLCP_HOME": str(layout.home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing here tells anybody outside that it runs
        "DO_NOT_TRACK": "true",
        "MALLOC_ARENA_MAX": "2",  # glibc keeps a heap per thread otherwise
    }
    base = {name: value for name, value in environ.items() if name not in _SECRET} | added
    data_plane = base | {
        "MLCP_REDIS_URL": f"unix://{redis_socket(layout)}",
        "MLCP_ROUTER_HOST": config.router_host,
        "MLCP_ROUTER_PORT": str(config.router_port),
        "MLCP_ROUTER_WORKERS": str(config.router_workers),
        "MLCP_ROUTER_TOKEN": token,
        "MLCP_API_URL": config.api_url,
        "MLCP_ROUTER_URL": config.router_url,
    }
    control_plane = data_plane | {
        "MLCP_POSTGRES_DSN": server.dsn("asyncpg", "mlcp", postgres.APP),
        "MLCP_MLFLOW_URL": config.mlflow_url,
        "MLFLOW_TRACKING_URI": config.mlflow_url,
        "MLCP_API_HOST": config.api_host,
        "MLCP_API_PORT": str(config.api_port),
    }
    return Environments(models.harmless(environ) | added, base, data_plane, control_plane)


def specs(config: Config, layout: Layout, server: Postgres, env: Environments) -> tuple[Spec, ...]:
    """In the order they are shown. Each starts as soon as what it names in `after` has been ready.

    The router names nothing: it serves from its own files, whatever the others do.

    Raises:
        CannotStart: a program is missing.
    """
    first = Spec(
        name="postgres",
        argv=server.argv,
        env=env.base,
        prepare=lambda: postgres.prepare(server),
        ready=_postgres_ready(server),
        socket=str(server.sockets / ".s.PGSQL.5432"),
        stop_signal=postgres.STOP_SIGNAL,
        user=(server.account.uid, server.account.gid) if server.account else None,
    )
    bus = Spec(
        name="redis",
        argv=_redis_argv(layout),
        env={**env.base, **binaries.REDIS_ENV},
        ready=lambda: probes.redis_answers(redis_socket(layout)),
        socket=str(redis_socket(layout)),
        grace_s=5,
    )
    artifacts = layout.home / "mlflow" / "artifacts"
    arguments = ("--backend", server.dsn("psycopg", "mlflow", postgres.REGISTRY), "--artifacts", str(artifacts))
    registry = Spec(
        name="mlflow",
        argv=_python("control_plane.embedded.mlflow_server", *arguments, "--port", str(config.mlflow_port)),
        env=env.base,
        after=("postgres",),
        ready=lambda: probes.http_ok(config.mlflow_port, "/health"),
        port=config.mlflow_port,
    )
    api = Spec(
        name="api",
        argv=_python("control_plane.api"),
        env=env.control_plane,
        after=("init",),
        port=config.api_port,
    )
    ours = replace(api, port=None)
    owning = {**env.control_plane, "MLCP_POSTGRES_OWNER_DSN": server.dsn("asyncpg", "mlcp")}
    return (
        first,
        bus,
        registry,
        replace(
            ours,
            name="init",
            argv=_python("control_plane.api.init"),
            env=owning,
            after=("postgres",),
            once=True,
            tries=3,
        ),
        api,
        replace(ours, name="reconciler", argv=_python("control_plane.reconciler"), after=("init", "redis")),
        replace(ours, name="worker", argv=_python("control_plane.worker"), after=("init",)),
        replace(
            ours, name="shipper", argv=_python("control_plane.ingest.shipper"), env=env.data_plane, after=("redis",)
        ),
        replace(ours, name="ingester", argv=_python("control_plane.ingest.ingester"), after=("init", "redis")),
        replace(
            api,
            name="router",
            argv=_python("control_plane.router"),
            env=env.data_plane,
            after=(),
            port=config.router_port,
            niceness=GOES_FIRST,
            realtime=realtime.ROUTER,
        ),
    )


def bootstrap(config: Config, env: Environments, after: tuple[str, ...]) -> Spec:
    """Trains and promotes the first models; waits until the models answer."""
    told = {**env.control_plane, "MLCP_MODELS_AT_START": ",".join(config.models_at_start)}
    argv = _python("control_plane.embedded.bootstrap")
    return Spec(BOOTSTRAP, argv, told, after=after, once=True, tries=3)


def router_token(layout: Layout) -> str:
    """The secret routers show to the API, made at first start."""
    path = layout.keys / "router.token"
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return path.read_text().strip()


def redis_socket(layout: Layout) -> Path:
    return layout.sockets / "redis.sock"


def _redis_argv(layout: Layout) -> tuple[str, ...]:
    folder = layout.home / "redis"
    note = folder / "server"  # which program wrote the data
    try:
        binary = binaries.redis_server(chosen_before=Path(note.read_text()) if note.exists() else None)
    except FileNotFoundError as error:
        raise CannotStart(str(error)) from error
    note.write_text(str(binary))
    options = {
        "port": "0",
        "unixsocket": str(redis_socket(layout)),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "no",  # what is lost with it comes again from spools and Postgres; fsyncs hold up Postgres' own
        "save": "",
        "maxmemory": _REDIS_MEMORY,
        "maxmemory-policy": "noeviction",
        "tcp-backlog": "128",
    }
    return (str(binary), *(word for name, value in options.items() for word in (f"--{name}", value)))


def _postgres_ready(server: Postgres) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        if not await probes.postgres_accepts(server.sockets):
            return False
        await asyncio.to_thread(postgres.ensure_databases, server)
        return True

    return ready


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)
