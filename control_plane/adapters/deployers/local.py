"""Model servers as child processes of this host's supervisor, on unix sockets.

The deployer fetches and verifies the artifact, then leaves two files: the server's spec, and a wish in `run/wanted/`
that the supervisor carries out for as long as the file is there. Nothing runs under the reconciler, so its death stops
no model server.
"""

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx

from control_plane.adapters.artifacts import ArtifactCache
from control_plane.adapters.deployers.base import Seen, Unit

_SOCKET_BYTES = 100  # the kernel holds 107
_LOOK_S = 1.5
_GRACE_S = 15
_LOG_TAIL = 2_000  # characters of a dead server's log that go into its error


class LocalDeployer:
    """`home`: MLCP_HOME of the supervisor that reads `run/wanted/`."""

    def __init__(self, home: Path, artifacts: ArtifactCache) -> None:
        self._home = home
        self._artifacts = artifacts
        self._clients: dict[UUID, httpx.AsyncClient] = {}
        self._descriptions: dict[UUID, Mapping[str, Any]] = {}  # of one digest and so for good

    async def aclose(self) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))
        self._clients.clear()

    async def deploy(self, unit: Unit) -> None:
        native = unit.runtime == "native"
        artifact = await self._artifacts.get(unit.model, unit.version, unit.digest, native=native)
        await asyncio.to_thread(self._want, unit, artifact)

    async def observe(self, unit: Unit) -> Seen:
        if not self._wanted(unit.id).exists():
            return Seen("absent")
        socket, aux = sockets(self._home, unit.id)
        address, aux_address = f"unix:{socket}", f"unix:{aux}"
        ready = await self._get(unit.id, socket, "/ready")
        if ready is None:
            error = await asyncio.to_thread(self._given_up, unit)
            return Seen("failed" if error else "starting", address, aux_address, error=error)
        if ready.get("digest") != unit.digest:
            error = f"The server of {unit.model} {unit.version} serves {ready.get('digest')}, not {unit.digest}."
            return Seen("failed", address, aux_address, error=error)
        if unit.id not in self._descriptions:
            description = await self._get(unit.id, socket, "/schema")
            if description is None:  # it died in between
                return Seen("starting", address, aux_address)
            self._descriptions[unit.id] = description
        return Seen("ready", address, aux_address, self._descriptions[unit.id])

    async def retire(self, deployment_id: UUID) -> bool:
        self._wanted(deployment_id).unlink(missing_ok=True)
        self._descriptions.pop(deployment_id, None)
        if client := self._clients.pop(deployment_id, None):
            await client.aclose()
        return True

    async def sweep(self, live: frozenset[UUID]) -> None:
        for file in (self._home / "run" / "wanted").glob("*.json"):
            try:
                deployment_id = UUID(file.stem)
            except ValueError:
                continue  # not ours
            if deployment_id not in live:
                await self.retire(deployment_id)
        await self._artifacts.tidy()

    def _want(self, unit: Unit, artifact: Path) -> None:
        socket, aux = sockets(self._home, unit.id)
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        serving = cast("Mapping[str, Any]", unit.config.get("serving") or {})
        spec = {
            "model": unit.model,
            "version": unit.version,
            "digest": unit.digest,
            "artifact": str(artifact),
            "runtime": unit.runtime,
            "socket": str(socket),
            "aux_socket": str(aux),
            # A model nobody sized holds a whole Python environment per worker.
            "workers": 1 if unit.inferred else int(serving.get("workers", 2)),
            "threads": 1,
            "metrics_dir": str(self._home / "run" / "metrics"),
            "cache_dir": str(self._home / "cache" / "envs"),
            "config": unit.config,
            "requirements": None,  # of a foreign model: those of its artifact
            "inferred": unit.inferred,
        }
        file = self._home / "run" / "deployments" / str(unit.id) / "server.json"
        _write(file, spec)
        wish: dict[str, object] = {
            "name": f"{unit.model}-{unit.version}-{unit.id.hex[-4:]}",
            "argv": [sys.executable, "-m", "model_servers.launch", "--spec", str(file)],
            "env": {},
            "grace_s": _GRACE_S,
            "port": None,
            "socket": str(socket),
            "realtime": unit.runtime == "native",
        }
        _write(self._wanted(unit.id), wish)

    def _wanted(self, deployment_id: UUID) -> Path:
        return self._home / "run" / "wanted" / f"{deployment_id}.json"

    def _given_up(self, unit: Unit) -> str | None:
        """Why the supervisor no longer starts it, None if it does. A supervisor that is away gives up nothing."""
        try:
            status = cast("Mapping[str, Any]", json.loads((self._home / "run" / "status.json").read_bytes()))
            wish = json.loads(self._wanted(unit.id).read_bytes())
        except (OSError, ValueError):
            return None
        for process in cast("list[Mapping[str, Any]]", status.get("processes") or []):
            if process.get("name") == wish.get("name") and process.get("state") == "failed":
                said = _tail(process.get("log"))
                return f"The server ended with {process.get('last_exit')} at every start. Its last words: {said}"
        return None

    async def _get(self, deployment_id: UUID, socket: Path, path: str) -> Mapping[str, Any] | None:
        """The JSON object a server answers with; None for anything but a 200."""
        client = self._clients.get(deployment_id)
        if client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)  # no TLS there
            client = httpx.AsyncClient(transport=transport, base_url="http://server", timeout=_LOOK_S)
            self._clients[deployment_id] = client
        try:
            response = await client.get(path)
            answer: object = response.json() if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None
        return cast("Mapping[str, Any]", answer) if isinstance(answer, dict) else None


def sockets(home: Path, deployment_id: UUID) -> tuple[Path, Path]:
    """The server's socket and its aux socket: in `run/s` or, where that path is too long, in a folder of TMPDIR.

    The last hex digits name them: those of a UUIDv7's begin are its time, and two deployments may share that.
    """
    name = deployment_id.hex[-8:]
    folder = home / "run" / "s"
    if len(os.fsencode(folder / f"{name}.aux.sock")) > _SOCKET_BYTES:
        folder = Path(tempfile.gettempdir()) / f"mlcp-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:8]}"
    return folder / f"{name}.sock", folder / f"{name}.aux.sock"


def _tail(log: object) -> str:
    try:
        return Path(str(log)).read_text(errors="replace")[-_LOG_TAIL:].strip() or "none"
    except OSError:
        return "none"


def _write(file: Path, content: Mapping[str, object]) -> None:
    """Whole or not at all, for readers that may look at any moment."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(json.dumps(content))
    temporary.chmod(0o600)
    temporary.replace(file)
