"""What the embedded stack can be told: environment, then `$MLCP_HOME/mlcp.toml`, then a default."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MODELS = "churn,fraud,categorization"


class CannotStart(Exception):
    """The stack refuses to start; nothing was started. One sentence per reason, each naming the setting to change."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the supervisor. Every field is MLCP_<NAME> in the environment, <name> in mlcp.toml."""

    home: Path  # absolute
    api_host: str  # MLflow and everything else stay on loopback
    router_host: str
    api_port: int
    router_port: int
    mlflow_port: int
    router_workers: int
    realtime: bool  # whether what answers customers is scheduled in real time where that is possible
    min_free_mb: int  # disk space below which a start is refused
    min_memory_mb: int  # available memory below which a start is refused
    models_at_start: tuple[str, ...]  # trained and promoted when the registry is empty
    postgres_user: str | None  # system user Postgres runs as when we are root; None: found or made

    @property
    def api_url(self) -> str:
        return _url(self.api_host, self.api_port)

    @property
    def router_url(self) -> str:
        return _url(self.router_host, self.router_port)

    @property
    def mlflow_url(self) -> str:
        return _url("127.0.0.1", self.mlflow_port)


def read(environ: Mapping[str, str]) -> Config:
    """Raises CannotStart with every value that cannot be used."""
    home = Path(environ.get("MLCP_HOME") or "var").expanduser().absolute()
    reasons: list[str] = []
    file = _file(home, reasons)

    def text(name: str, default: str) -> str:
        return environ.get(f"MLCP_{name.upper()}") or str(file.get(name, default))

    def number(name: str, default: int, low: int, high: int) -> int:
        given = text(name, str(default))
        if given.isdecimal() and low <= int(given) <= high:
            return int(given)
        reasons.append(f"MLCP_{name.upper()} must be a whole number from {low} to {high}, not {given!r}")
        return default

    config = Config(
        home=home,
        api_host=text("api_host", "127.0.0.1"),
        router_host=text("router_host", "127.0.0.1"),
        api_port=number("api_port", 8000, 1, 65535),
        router_port=number("router_port", 8080, 1, 65535),
        mlflow_port=number("mlflow_port", 5000, 1, 65535),
        router_workers=number("router_workers", 2, 1, 64),
        realtime=bool(number("realtime", 1, 0, 1)),
        min_free_mb=number("min_free_mb", 1024, 0, 10**9),
        min_memory_mb=number("min_memory_mb", 2048, 0, 10**9),
        models_at_start=_names(environ.get("MLCP_MODELS_AT_START", str(file.get("models_at_start", DEFAULT_MODELS)))),
        postgres_user=text("postgres_user", "") or None,
    )
    if reasons:
        raise CannotStart(*reasons)
    return config


def _url(host: str, port: int) -> str:
    """Where this machine itself reaches what listens there."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (recognised, not bound)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _file(home: Path, reasons: list[str]) -> Mapping[str, object]:
    path = home / "mlcp.toml"
    try:
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        reasons.append(f"{path} cannot be read ({error}): correct it, or set MLCP_HOME to another folder")
        return {}
