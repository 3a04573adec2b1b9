"""What a bare machine installs: pinned, hashed, from no particular place."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from control_plane.embedded import install
from model_servers import indexes

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, set[str]]:
    """Package -> its pins; a package may be pinned once per marker."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)(?:\[[a-z,]+\])?==(\S+)", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_by_hash_and_names_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z,]+\])?==", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_tests_run_on_what_users_run() -> None:
    run, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {name: dev.get(name) for name in run} == run


def test_uv_can_be_had_by_pip_with_its_hashes() -> None:
    entry = install._pin_of_uv()
    assert entry.startswith("uv==")
    assert entry.count("==") == 1
    assert entry.count("--hash=sha256:") > 3


def test_pips_settings_reach_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "SSL_CERT_FILE", "PIP_FIND_LINKS", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setattr(indexes, "pip_settings", lambda: {"extra-index-url": "https://a https://b", "cert": "/c.pem"})
    environment = install._environment()
    assert environment["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert environment["UV_INDEX"] == "https://a https://b"
    assert environment["SSL_CERT_FILE"] == "/c.pem"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://ours")
    assert install._environment()["UV_DEFAULT_INDEX"] == "https://ours"


def test_the_installer_needs_nothing_but_the_standard_library() -> None:
    program = f"import runpy; runpy.run_path({install.__file__!r})['_environment']()"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("requirements.txt", ("server", "serving", "training", "embedded")),
        ("requirements-dev.txt", ("server", "serving", "training", "embedded", "lightgbm", "dev")),
    ],
)
def test_what_is_pinned_is_what_the_project_asks_for(name: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in project["dependencies"]]
    asked += [Requirement(line) for extra in extras for line in project["optional-dependencies"][extra]]
    pinned = pins(name)
    for requirement in asked:
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not pinned: run `make requirements`"
        assert all(requirement.specifier.contains(version) for version in versions), requirement
