"""`python -m control_plane.embedded.bootstrap`: the first models of an empty registry, and proof that models answer.

Trains the models named by MLCP_MODELS_AT_START, promotes each through the admin API as anybody would, and waits until
the data plane answers with it. Killed half way, the next start goes on: what is trained is not trained again. A
registry somebody else has filled is left alone. Progress goes to `run/bootstrap.json`; exit code 1 if a model failed.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from control_plane.embedded import logs
from control_plane.embedded.files import write_json

_TRAINING_MB = 700  # what one training needs; two run at a time only if both fit
_ANSWER_WITHIN_S = 120.0
_EVERY_S = 0.1
_REASON = "first start: trained on simulated data"


class Failed(Exception):
    """This model cannot be brought up; the message says at what."""


class Bootstrap:
    """One run. `home` is MLCP_HOME; the clients carry their keys."""

    def __init__(self, home: Path, api: httpx.AsyncClient, router: httpx.AsyncClient) -> None:
        self._home, self._api, self._router = home, api, router
        self._steps: dict[str, dict[str, str]] = {}
        self._note = home / "bootstrap.json"  # which models are ours to bring up; stays after a kill
        self._training = asyncio.Semaphore(2 if psutil.virtual_memory().available >> 20 > 2 * _TRAINING_MB else 1)

    async def run(self, wanted: tuple[str, ...]) -> int:
        there = {model["name"]: model for model in await self._get("/api/v1/models")}
        ours = self._ours(wanted, empty=not there)
        answering = [name for name, model in there.items() if model["production_version"] and name not in ours]
        for name in (*ours, *answering):
            self._step(name, "pending")
        results = await asyncio.gather(
            *(self._guarded(name, self._bring_up) for name in ours),
            *(self._guarded(name, self._wait_for_answer) for name in answering),
        )
        ok = all(results[: len(ours)])  # an old model that does not answer is shown, and stops no start
        if ok:
            write_json(self._note, {"models": [], "done": True})
        return 0 if ok else 1

    def _ours(self, wanted: tuple[str, ...], *, empty: bool) -> tuple[str, ...]:
        try:
            noted = json.loads(self._note.read_bytes())
            return tuple(noted["models"])
        except (OSError, ValueError, KeyError):
            ours = wanted if empty else ()
            write_json(self._note, {"models": ours, "done": not ours})
            return ours

    async def _guarded(self, name: str, work: Callable[[str], Awaitable[None]]) -> bool:
        try:
            await work(name)
        except (Failed, httpx.HTTPError) as error:
            self._step(name, "failed", str(error) or type(error).__name__)
            return False
        self._step(name, "done", "answers")
        return True

    async def _bring_up(self, name: str) -> None:
        versions = await self._versions(name)
        if not versions:
            self._step(name, "running", "waits for its turn to be trained")
            async with self._training:
                self._step(name, "running", "is being trained")
                await self._train(name)
            self._step(name, "running", "trained; waiting to be seen in the registry")
            versions = await self._until(name, "a version in the registry", lambda: self._versions(name))
        if not any(version["stage"] == "Production" for version in versions):
            self._step(name, "running", "is being promoted")
            await self._promote(name, versions[0]["version"])
        await self._wait_for_answer(name)

    async def _train(self, name: str) -> None:
        log = self._home / "logs" / f"train-{name}.log"
        command = (sys.executable, "-m", "training", "train", name, "--json")
        with logs.open_for(log) as output:
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=output)
            assert process.stdout is not None
            said = ""
            async for line in process.stdout:
                output.write(line)
                output.flush()
                if detail := _detail(line):
                    said = detail
                    self._step(name, "running", f"training: {detail}")
            code = await process.wait()
        if code:
            raise Failed(f"its training ended with {code} ({_short(said)}); see {log}")

    async def _promote(self, name: str, version: str) -> None:
        body = {"version": version, "reason": _REASON}
        answer = await self._api.post(f"/api/v1/models/{name}/promote/production", json=body)
        if answer.is_success:
            return
        document = _json(answer)
        if answer.status_code == 409 and document.get("type", "").endswith("rollout-open"):
            return  # by an earlier run
        reasons = "; ".join(document.get("reasons") or [str(document.get("detail", answer.status_code))])
        raise Failed(f"version {version} is not promoted: {reasons}")

    async def _wait_for_answer(self, name: str) -> None:
        self._step(name, "running", "waiting for its model server")
        await self._until(name, "an answer", lambda: self._answers(name))

    async def _answers(self, name: str) -> bool:
        try:
            example = await self._router.get(f"/ml/{name}/example")
            if not example.is_success:
                return False
            answer = await self._router.post(f"/ml/{name}/predict", content=example.content)
        except httpx.HTTPError:
            return False
        return answer.is_success

    async def _versions(self, name: str) -> list[dict[str, Any]]:
        """Newest first; empty for a model nobody knows."""
        answer = await self._api.get(f"/api/v1/models/{name}/versions")
        return list(_json(answer)["items"]) if answer.is_success else []

    async def _get(self, path: str) -> list[dict[str, Any]]:
        answer = await self._api.get(path, params={"limit": 200})
        answer.raise_for_status()
        return list(_json(answer)["items"])

    async def _until(self, name: str, what: str, look: Callable[[], Awaitable[Any]]) -> Any:
        deadline = time.monotonic() + _ANSWER_WITHIN_S
        while not (found := await look()):
            if time.monotonic() > deadline:
                raise Failed(f"no {what.removeprefix('a ').removeprefix('an ')} within {_ANSWER_WITHIN_S:.0f} s")
            await asyncio.sleep(_EVERY_S)
        return found

    def _step(self, name: str, state: str, detail: str = "") -> None:
        self._steps[name] = {"name": name, "state": state, "detail": detail}
        write_json(self._home / "run" / "bootstrap.json", {"steps": list(self._steps.values())})
        sys.stderr.write(json.dumps({"event": f"{name}: {detail or state}", "process": "bootstrap"}) + "\n")


async def run(environ: Mapping[str, str]) -> int:
    home = Path(environ["MLCP_HOME"])
    wanted = tuple(filter(None, environ.get("MLCP_MODELS_AT_START", "").split(",")))
    async with (
        _client(environ["MLCP_API_URL"], home / "keys" / "admin.key") as api,
        _client(environ["MLCP_ROUTER_URL"], home / "keys" / "predictor.key") as router,
    ):
        return await Bootstrap(home, api, router).run(wanted)


def _client(url: str, key: Path) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key.read_text().strip()}", "Content-Type": "application/json"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=15, trust_env=False)


def _detail(line: bytes) -> str | None:
    """What a progress line of the training says, if it is one."""
    try:
        return str(json.loads(line)["detail"])
    except (ValueError, KeyError, TypeError):
        return None


def _short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        return dict(answer.json())
    except ValueError:
        return {}


if __name__ == "__main__":
    sys.exit(asyncio.run(run(os.environ)))
