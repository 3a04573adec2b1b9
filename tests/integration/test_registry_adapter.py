"""The adapter against a real MLflow."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.artifacts import ArtifactCache
from control_plane.adapters.registry import Registry
from control_plane.domain.registry import tree_digest
from control_plane.errors import InvalidInput, NotFound, RegistryUnavailable
from model_servers.native import digest
from tests.support.reconciler import DEAD
from tests.support.registering import register, request

pytestmark = pytest.mark.integration
FILES = {"MLmodel": b"flavors: {}", "a/b/c.bin": b"x" * 100_000, "a/d e.txt": "é".encode()}


@pytest.fixture
async def registry(mlflow: str) -> AsyncIterator[Registry]:
    client = Registry(mlflow)
    yield client
    await client.aclose()


async def test_models_and_versions_with_their_tags_aliases_and_words(mlflow: str, registry: Registry) -> None:
    register(mlflow, "adapter", FILES, {"k": "v"})
    second = register(mlflow, "adapter", {})
    before = next(model for model in await registry.models() if model.name == "adapter")
    await registry.set_alias("adapter", "production", second)
    await registry.set_tag("adapter", second, "mlcp.gates", "none")
    await registry.describe("adapter", second, "words")
    (first, changed) = await registry.versions("adapter")
    assert (first.version, dict(first.tags), first.ready) == ("1", {"k": "v"}, True)
    assert (changed.description, dict(changed.tags)) == ("words", {"mlcp.gates": "none"})
    after = next(model for model in await registry.models() if model.name == "adapter")
    assert (after.updated_ms, dict(after.aliases)) == (before.updated_ms, {"production": second})
    assert await registry.alias("adapter", "production") == second
    for _ in range(2):
        await registry.delete_alias("adapter", "production")
        await registry.delete_tag("adapter", second, "mlcp.gates")
    assert await registry.alias("adapter", "production") is None
    request(mlflow, "DELETE", "model-versions/delete", name="adapter", version=second)
    gone = next(model for model in await registry.models() if model.name == "adapter")
    assert gone.updated_ms > after.updated_ms
    assert [version.version for version in await registry.versions("adapter")] == ["1"]
    with pytest.raises(NotFound):
        await registry.version("adapter", second)
    assert await registry.versions("it's nowhere") == []


async def test_an_artifact_is_downloaded_whole_and_its_digest_is_that_of_its_files(
    mlflow: str, registry: Registry, tmp_path: Path
) -> None:
    version = register(mlflow, "tree", FILES)
    assert [file.path for file in await registry.files("tree", version)] == sorted(FILES)
    assert await registry.read("tree", version, "a/d e.txt") == "é".encode()
    with pytest.raises(InvalidInput, match="larger"):
        await registry.read("tree", version, "a/b/c.bin", limit=10)
    with pytest.raises(NotFound):
        await registry.read("tree", version, "nothing")
    found = await registry.download("tree", version, tmp_path / "t")
    assert tree_digest(found) == digest.of_folder(tmp_path / "t")
    assert [path for path, _ in await registry.download("tree", version, tmp_path / "u", under="a")] == [
        "b/c.bin",
        "d e.txt",
    ]


async def test_the_cache_heals_what_was_damaged_and_refuses_what_is_not_what_was_registered(
    mlflow: str, registry: Registry, tmp_path: Path
) -> None:
    version = register(mlflow, "cached", FILES)
    cache = ArtifactCache(tmp_path, registry)
    found = await cache.discover("cached", version, native=False, keep=True)
    assert found is not None
    folder = await cache.get("cached", version, found, native=False)
    (folder / "MLmodel").write_text("tampered with")
    assert digest.of_folder(await cache.get("cached", version, found, native=False)) == found
    with pytest.raises(InvalidInput, match="not the one that was registered"):
        await cache.get("cached", version, "sha256:" + "0" * 64, native=False)
    assert await cache.discover("cached", version, native=True, keep=True) is None  # it has no such folder
    assert [one.name for one in folder.parent.iterdir()] == [found.removeprefix("sha256:")]


async def test_an_artifact_changed_in_mlflow_after_it_was_registered_is_refused_by_its_digest(
    mlflow: str, registry: Registry, tmp_path: Path
) -> None:
    version = register(mlflow, "overwritten", FILES)
    first, second = ArtifactCache(tmp_path / "first", registry), ArtifactCache(tmp_path / "second", registry)
    recorded = await first.discover("overwritten", version, native=False, keep=True)
    assert recorded is not None
    found = request(mlflow, "GET", "model-versions/get", name="overwritten", version=version)
    target = found["model_version"]["source"].removeprefix("mlflow-artifacts:/").lstrip("/") + "/MLmodel"
    async with httpx.AsyncClient(base_url=mlflow, timeout=240) as client:
        written = await client.put(f"/api/2.0/mlflow-artifacts/artifacts/{target}", content=b"another model")
    assert written.status_code == 200
    with pytest.raises(InvalidInput, match="not the one that was registered") as refused:
        await second.get("overwritten", version, recorded, native=False)
    now = {**FILES, "MLmodel": b"another model"}
    changed = tree_digest((path, sha256(content).hexdigest()) for path, content in now.items())
    assert (refused.value.extra["expected"], refused.value.extra["found"]) == (recorded, changed)
    assert recorded in refused.value.detail
    assert changed in refused.value.detail
    kept = await first.get("overwritten", version, recorded, native=False)
    assert digest.of_folder(kept) == recorded  # who has the right one goes on with it


async def test_artifacts_out_of_the_proxys_reach_and_a_dead_mlflow_are_named_as_such(mlflow: str) -> None:
    request(mlflow, "POST", "registered-models/create", name="afar")
    request(mlflow, "POST", "model-versions/create", name="afar", source="s3://bucket/model")
    registry = Registry(mlflow)
    with pytest.raises(InvalidInput, match="s3://bucket/model"):
        await registry.files("afar", "1")
    with pytest.raises(InvalidInput, match="https"):
        await registry.ensure_webhook("w", "http://127.0.0.1:1/", secret="s", events=[("MODEL_VERSION", "CREATED")])
    await registry.aclose()
    dead = Registry(DEAD)
    with pytest.raises(RegistryUnavailable):
        await dead.models()
    with pytest.raises(RegistryUnavailable):
        await dead.set_alias("a", "b", "1")
    await dead.aclose()
