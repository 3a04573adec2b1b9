from dataclasses import fields
from pathlib import Path

import pytest

from control_plane.embedded import config
from control_plane.embedded.config import CannotStart


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    (tmp_path / "mlcp.toml").write_text('api_port = 8001\nrouter_port = 8002\nmodels_at_start = "churn"\n')
    read = config.read({"MLCP_HOME": str(tmp_path), "MLCP_API_PORT": "9001"})
    assert (read.api_port, read.router_port, read.mlflow_port) == (9001, 8002, 5000)
    assert read.models_at_start == ("churn",)


def test_the_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.read({}).home == tmp_path / "var"
    assert config.read({"MLCP_HOME": "x"}).home == tmp_path / "x"


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("10.0.0.7", "http://10.0.0.7:8000"), ("::", "http://[::1]:8000")],
)
def test_what_listens_everywhere_is_reached_on_loopback(tmp_path: Path, host: str, url: str) -> None:
    assert config.read({"MLCP_HOME": str(tmp_path), "MLCP_API_HOST": host}).api_url == url


def test_every_setting_has_its_line_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "run-embedded.md").read_text()
    for field in fields(config.Config):
        assert f"`MLCP_{field.name.upper()}`" in page, field.name


def test_an_empty_list_of_models_is_an_empty_list_not_the_default(tmp_path: Path) -> None:
    assert config.read({"MLCP_HOME": str(tmp_path), "MLCP_MODELS_AT_START": ""}).models_at_start == ()
    assert config.read({"MLCP_HOME": str(tmp_path)}).models_at_start == ("churn", "fraud", "categorization")


def test_every_value_that_cannot_be_used_is_named_at_once(tmp_path: Path) -> None:
    environ = {
        "MLCP_HOME": str(tmp_path),
        "MLCP_API_PORT": "http",
        "MLCP_ROUTER_PORT": "65536",
        "MLCP_MIN_FREE_MB": "-1",
    }
    with pytest.raises(CannotStart) as refusal:
        config.read(environ)
    assert [reason.split()[0] for reason in refusal.value.reasons] == [
        "MLCP_API_PORT",
        "MLCP_ROUTER_PORT",
        "MLCP_MIN_FREE_MB",
    ]


def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "mlcp.toml").write_text("api_port 8001")
    with pytest.raises(CannotStart, match=r"mlcp\.toml cannot be read"):
        config.read({"MLCP_HOME": str(tmp_path)})
