"""MLflow over its REST API: the only module that knows it.

Reads are retried a few times, writes never: whoever reconciles comes again. Whatever goes wrong leaves as
`RegistryUnavailable` (try later), `NotFound` (it is not there) or `InvalidInput` (MLflow refuses it, or its artifacts
lie where MLflow does not serve them).

Checked against MLflow 3.17: a registered model's `last_updated_timestamp` moves when a version comes or goes, not when
an alias or tag does; `registered-models/search` carries the aliases; a missing alias is a 400; the artifact proxy
answers an unknown folder with an empty list.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from control_plane.errors import ControlPlaneError, InvalidInput, NotFound, RegistryUnavailable

_ATTEMPTS = 3
_PAGE = 200
_PARALLEL_DOWNLOADS = 4
_MAX_DEPTH = 16  # folders within folders in one artifact
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    name: str
    updated_ms: int  # moves when a version is created or deleted
    aliases: Mapping[str, str]  # alias -> version


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    name: str
    version: str
    source: str  # models:/m-..., runs:/..., mlflow-artifacts:/...
    created_at: datetime
    run_id: str | None = None
    ready: bool = True  # MLflow's own status; False while it is still being registered
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """`path` is relative to the artifact's root, with forward slashes."""

    path: str
    size: int


class Registry:
    """A client of one MLflow server. Close it with `aclose`."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        limits = httpx.Limits(max_connections=2 * _PARALLEL_DOWNLOADS)
        self._client = httpx.AsyncClient(base_url=url.rstrip("/"), timeout=timeout_s, limits=limits, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def answers(self) -> bool:
        """Whether the server is there at all."""
        try:
            return (await self._client.get("/health")).is_success
        except httpx.HTTPError:
            return False

    async def models(self) -> list[RegisteredModel]:
        """Every registered model with its aliases; prompts, which MLflow keeps beside them, are left out."""
        found = await self._pages("registered-models/search", "registered_models", {})
        return [
            RegisteredModel(
                name=_text(item, "name"),
                updated_ms=int(item.get("last_updated_timestamp") or 0),
                aliases={_text(alias, "alias"): _text(alias, "version") for alias in _items(item, "aliases")},
            )
            for item in found
        ]

    async def versions(self, model: str) -> list[RegisteredVersion]:
        """Every version of `model` that was not deleted, oldest first; empty for an unknown model."""
        wanted = {"filter": f"name = '{model}'"} if "'" not in model else {"filter": f'name = "{model}"'}
        found = [_version(item) for item in await self._pages("model-versions/search", "model_versions", wanted)]
        return sorted((v for v in found if v.name == model), key=lambda v: int(v.version))

    async def version(self, model: str, version: str) -> RegisteredVersion:
        """Raises NotFound for one that never was or was deleted."""
        answer = await self._get("model-versions/get", {"name": model, "version": version})
        return _version(_mapping(answer, "model_version"))

    async def alias(self, model: str, alias: str) -> str | None:
        """The version `alias` points to now, None if there is no such alias."""
        try:
            answer = await self._get("registered-models/alias", {"name": model, "alias": alias})
        except (NotFound, InvalidInput):  # MLflow 3.17 calls a missing alias an invalid parameter
            return None
        return _text(_mapping(answer, "model_version"), "version")

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        await self._send("POST", "registered-models/alias", {"name": model, "alias": alias, "version": version})

    async def delete_alias(self, model: str, alias: str) -> None:
        """Deleting one that is not there is no error."""
        await self._send("DELETE", "registered-models/alias", {"name": model, "alias": alias})

    async def set_tag(self, model: str, version: str, key: str, value: str) -> None:
        body = {"name": model, "version": version, "key": key, "value": value}
        await self._send("POST", "model-versions/set-tag", body)

    async def delete_tag(self, model: str, version: str, key: str) -> None:
        """Deleting one that is not there is no error."""
        await self._send("DELETE", "model-versions/delete-tag", {"name": model, "version": version, "key": key})

    async def describe(self, model: str, version: str, description: str) -> None:
        body = {"name": model, "version": version, "description": description}
        await self._send("PATCH", "model-versions/update", body)

    async def files(self, model: str, version: str) -> list[ArtifactFile]:
        """Every file of the version's artifact, by walking the artifact proxy. Empty if nothing was uploaded."""
        return sorted(await self._walk(await self._root(model, version)), key=lambda file: file.path.encode())

    async def read(self, model: str, version: str, path: str, *, limit: int = 4 * 2**20) -> bytes:
        """One small file of the artifact, whole. Raises NotFound, or InvalidInput if it is larger than `limit`."""
        root = await self._root(model, version)
        async for attempt in _attempts():
            with attempt:
                content = bytearray()
                try:
                    async with self._stream(f"{root}/{path}") as response:
                        async for chunk in response.aiter_bytes():
                            content += chunk
                            if len(content) > limit:
                                raise InvalidInput(f"{path} is larger than {limit} bytes.")
                except RegistryUnavailable as exc:
                    if await self._lacks(f"{root}/{path}"):
                        raise NotFound(f"The artifact of {model} {version} has no file {path}.") from exc
                    raise
                return bytes(content)
        raise AssertionError  # tenacity raises instead of leaving the loop

    async def download(self, model: str, version: str, into: Path, *, under: str = "") -> list[tuple[str, str]]:
        """Fetch the artifact's files below `under` (a folder in it; "": all) into `into`.

        Returns (path below `under`, hex SHA-256) of every file; empty if there is none. Files appear one by one:
        give it a temporary folder and rename that when all is there.
        """
        root = await self._root(model, version)
        if under:
            root = f"{root}/{under}"
        files = await self._walk(root)
        slots = asyncio.Semaphore(_PARALLEL_DOWNLOADS)

        async def fetch(file: ArtifactFile) -> tuple[str, str]:
            async with slots:
                return file.path, await self._fetch(f"{root}/{file.path}", into / file.path)

        try:
            async with asyncio.TaskGroup() as group:
                fetches = [group.create_task(fetch(file)) for file in files]
        except* ControlPlaneError as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in fetches]

    async def ensure_webhook(self, name: str, url: str, *, secret: str, events: Sequence[tuple[str, str]]) -> None:
        """Have MLflow call `url` on `events`, pairs like ("MODEL_VERSION", "CREATED"); made once per name and URL.

        MLflow 3.17 delivers to public https addresses only and refuses others, loopback included: InvalidInput.
        Polling notices everything a webhook tells, some seconds later.
        """
        known = _items(await self._get("webhooks", {}), "webhooks")
        if any(hook.get("name") == name and hook.get("url") == url for hook in known):
            return
        spelled = [{"entity": entity, "action": action} for entity, action in events]
        await self._send("POST", "webhooks", {"name": name, "url": url, "secret": secret, "events": spelled})

    async def _root(self, model: str, version: str) -> str:
        """Where the version's artifact lies behind the artifact proxy, as a path without leading slash."""
        answer = await self._get("model-versions/get-download-uri", {"name": model, "version": version})
        uri = _text(answer, "artifact_uri")
        if uri.startswith("models:/m-"):
            found = await self._get(f"logged-models/{uri.removeprefix('models:/')}", {})
            uri = _text(_mapping(_mapping(found, "model"), "info"), "artifact_uri")
        elif uri.startswith("runs:/"):
            run_id, _, path = uri.removeprefix("runs:/").partition("/")
            found = await self._get("runs/get", {"run_id": run_id})
            uri = _text(_mapping(_mapping(found, "run"), "info"), "artifact_uri").rstrip("/") + f"/{path}"
        parts = urlsplit(uri)
        path = parts.path.partition(_PROXY)[2] or parts.path
        if parts.scheme not in {"mlflow-artifacts", "http", "https"} or ".." in PurePosixPath(path).parts:
            raise InvalidInput(
                f"The artifact of {model} {version} lies at {uri}, which MLflow's artifact proxy does not serve: "
                "register it through a server that runs with --serve-artifacts.",
                source=uri,
            )
        return path.strip("/")

    async def _lacks(self, path: str) -> bool:
        """Whether MLflow lists the folder and not the file: of one that is in no bucket it says 500, not 404."""
        folder, _, name = path.rpartition("/")
        try:
            listing = await self._request("GET", _PROXY, params={"path": folder})
        except ControlPlaneError:
            return False
        return all(PurePosixPath(_text(item, "path")).name != name for item in _items(listing, "files"))

    async def _walk(self, root: str, below: str = "", depth: int = 0) -> list[ArtifactFile]:
        if depth > _MAX_DEPTH:
            raise InvalidInput(f"The artifact has more than {_MAX_DEPTH} levels of folders.")
        found: list[ArtifactFile] = []
        listing = await self._get(_PROXY, {"path": f"{root}/{below}".rstrip("/")})
        for item in _items(listing, "files"):
            name = PurePosixPath(_text(item, "path")).name  # MLflow answers names, older releases whole paths
            if name in {"", ".."}:
                raise InvalidInput(f"The artifact names a file {_text(item, 'path')!r}.")
            if item.get("is_dir"):
                found += await self._walk(root, f"{below}{name}/", depth + 1)
            else:
                found.append(ArtifactFile(f"{below}{name}", int(item.get("file_size") or 0)))
        return found

    async def _fetch(self, path: str, target: Path) -> str:
        async for attempt in _attempts():
            with attempt:
                digest = sha256()
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    async with self._stream(path) as response:
                        async for chunk in response.aiter_bytes(2**20):
                            await asyncio.to_thread(file.write, chunk)
                            digest.update(chunk)
                return digest.hexdigest()
        raise AssertionError  # tenacity raises instead of leaving the loop

    @asynccontextmanager
    async def _stream(self, path: str) -> AsyncGenerator[httpx.Response]:
        try:
            async with self._client.stream("GET", f"{_PROXY}/{quote(path)}") as response:
                if response.is_error:
                    await response.aread()
                _check(response)
                yield response
        except httpx.TransportError as exc:
            raise RegistryUnavailable(f"MLflow broke off a download: {exc!r}.") from exc

    async def _pages(self, path: str, member: str, params: Mapping[str, str]) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        token = ""
        while True:
            page = {**params, "max_results": str(_PAGE)} | ({"page_token": token} if token else {})
            answer = await self._get(path, page)
            found += _items(answer, member)
            token = str(answer.get("next_page_token") or "")
            if not token:
                return found

    async def _get(self, path: str, params: Mapping[str, str]) -> Mapping[str, Any]:
        async for attempt in _attempts():
            with attempt:
                return await self._request("GET", path, params=params)
        raise AssertionError  # tenacity raises instead of leaving the loop

    async def _send(self, method: str, path: str, body: Mapping[str, object]) -> None:
        await self._request(method, path, body=body)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Mapping[str, Any]:
        url = path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
        try:
            response = await self._client.request(method, url, params=params, json=body)
        except httpx.TransportError as exc:
            raise RegistryUnavailable(f"MLflow does not answer: {exc!r}.") from exc
        _check(response)
        try:
            answer: object = response.json()
        except ValueError as exc:
            raise RegistryUnavailable("MLflow's answer is not JSON; does the address belong to MLflow?") from exc
        return cast("Mapping[str, Any]", answer) if isinstance(answer, dict) else {}


def _attempts() -> AsyncRetrying:
    return AsyncRetrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.1, max=1),
        retry=retry_if_exception_type(RegistryUnavailable),
        reraise=True,
    )


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        said: object = json.loads(response.content).get("message")
    except (ValueError, AttributeError):
        said = None
    detail = f"MLflow answered {response.status_code}: {said or response.reason_phrase}"
    if response.status_code == 404:
        raise NotFound(detail)
    if response.is_server_error or response.status_code in {401, 403, 408, 429}:
        raise RegistryUnavailable(detail)
    raise InvalidInput(detail)


def _version(item: Mapping[str, Any]) -> RegisteredVersion:
    return RegisteredVersion(
        name=_text(item, "name"),
        version=_text(item, "version"),
        source=str(item.get("source") or ""),
        created_at=datetime.fromtimestamp(int(item.get("creation_timestamp") or 0) / 1000, UTC),
        run_id=str(item["run_id"]) if item.get("run_id") else None,
        ready=item.get("status", "READY") == "READY",
        description=str(item.get("description") or ""),
        tags={_text(tag, "key"): str(tag.get("value") or "") for tag in _items(item, "tags")},
    )


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if value is None:
        raise RegistryUnavailable(f"MLflow's answer has no {key!r}.")
    return str(value)


def _mapping(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = item.get(key)
    if not isinstance(value, dict):
        raise RegistryUnavailable(f"MLflow's answer has no {key!r}.")
    return cast("Mapping[str, Any]", value)


def _items(item: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value: object = item.get(key) or []
    return cast("list[Mapping[str, Any]]", value) if isinstance(value, list) else []
