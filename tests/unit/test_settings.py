from pathlib import Path

import pytest
from pydantic import ValidationError

from control_plane.settings import ApiSettings, RouterSettings, ShipperSettings


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MLCP_HOME", str(tmp_path))
    return tmp_path


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mlcp.toml").write_text('redis_url = "redis://file:1"\nrouter_port = 9090\nrouter_workers = 3\n')
    monkeypatch.setenv("MLCP_ROUTER_PORT", "7070")
    settings = RouterSettings()
    assert (settings.router_port, settings.router_workers, settings.router_host) == (7070, 3, "127.0.0.1")
    assert settings.redis_url == "redis://file:1"


def test_classic_names_are_aliases_and_ours_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCP_POSTGRES_DSN", "postgresql+asyncpg://x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://classic:5000")
    monkeypatch.setenv("DRIFT_THRESHOLD", "0.2")
    settings = ApiSettings()
    assert (settings.mlflow_url, settings.drift_threshold) == ("http://classic:5000", 0.2)
    monkeypatch.setenv("MLCP_MLFLOW_URL", "http://ours:5000")
    assert ApiSettings().mlflow_url == "http://ours:5000"


@pytest.mark.parametrize(("given", "url"), [("cache", "redis://cache:6379"), ("cache:1", "redis://cache:1")])
def test_a_bare_redis_host_becomes_a_url(given: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", given)
    assert ShipperSettings().redis_url == url


def test_the_data_plane_has_no_database_password() -> None:
    assert "postgres_dsn" not in RouterSettings.model_fields
    assert "postgres_dsn" not in ShipperSettings.model_fields


def test_a_secret_has_no_default_and_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="postgres_dsn"):
        ApiSettings()
    monkeypatch.setenv("MLCP_POSTGRES_DSN", "postgresql+asyncpg://u:hunter2@h/d")
    assert "hunter2" not in repr(ApiSettings())


def test_settings_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCP_REDIS_URL", "redis://x")
    with pytest.raises(ValidationError, match="frozen"):
        RouterSettings().router_port = 1  # type: ignore[misc]


def test_a_secret_may_be_a_file_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlcp_postgres_dsn").write_text("postgresql+asyncpg://u:hunter2@h/d\n")
    monkeypatch.setenv("MLCP_SECRETS_DIR", str(tmp_path))
    assert ApiSettings().postgres_dsn.get_secret_value() == "postgresql+asyncpg://u:hunter2@h/d"  # pyright: ignore
    monkeypatch.setenv("MLCP_POSTGRES_DSN", "postgresql+asyncpg://x")
    assert ApiSettings().postgres_dsn.get_secret_value() == "postgresql+asyncpg://x"  # pyright: ignore
