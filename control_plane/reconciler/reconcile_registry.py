"""MLflow -> models and versions: what somebody registered is known here within seconds, with a config and a digest.

A version's row is written once and never follows later edits in MLflow. A version deleted there keeps its row and, if
it is Staging or Production, its stage and its servers: taking a customer's answer away is a decision of its own.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import structlog
import yaml
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import DBAPIError

from control_plane.adapters.registry import RegisteredModel, RegisteredVersion
from control_plane.adapters.store import audit, discovered, wake
from control_plane.adapters.store.discovered import Known
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain import registry as domain
from control_plane.domain import storable
from control_plane.domain.audit import Actor
from control_plane.domain.model_config import ModelConfig
from control_plane.domain.stages import Stage
from control_plane.errors import ControlPlaneError, InvalidInput, NotFound, Unavailable
from control_plane.reconciler.context import Context

_CONFIG = TypeAdapter(ModelConfig)
_SWEEP_S = 30.0  # every model's versions are read that often, though nothing says they changed
_DATA_EXCEPTION = "22"  # class of SQLSTATEs: what is to be kept is at fault, not the way to keep it
_SETTLE_S = 20.0  # a version of our own pipeline gets its tags within that time after it was registered
_DECLARED = (f"{domain.NATIVE_FOLDER}/model.yaml", "model.yaml", "artifacts/model.yaml", "extra_files/model.yaml")
_EVIDENCE = (f"{domain.NATIVE_FOLDER}/evidence.json", "evidence.json", "artifacts/evidence.json")
_MLFLOW = Actor("mlflow")
_EVENTS = (
    ("MODEL_VERSION", "CREATED"),
    ("MODEL_VERSION_ALIAS", "CREATED"),
    ("MODEL_VERSION_ALIAS", "DELETED"),
    ("MODEL_VERSION_TAG", "SET"),
)

log = structlog.get_logger()


@dataclass(slots=True)
class Memory:
    """Of this leader alone: which of MLflow's models have been read to the end, and when."""

    read: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])  # (updated_ms, monotonic)
    told: set[str] = field(default_factory=set[str])  # problems logged once
    mirrored: tuple[RegisteredModel, ...] | None = None  # what MLflow showed when all was last made to agree with it
    undigested: bool = True  # versions may be without a digest
    hooked: bool = False  # MLflow has been asked for a webhook
    digesting: asyncio.Task[None] | None = None  # may take as long as a download: nothing else waits for it

    async def aclose(self) -> None:
        if self.digesting:
            self.digesting.cancel()
            await asyncio.gather(self.digesting, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Listing:
    """What one look found. `versions`: of the models read in this look."""

    models: tuple[RegisteredModel, ...]
    versions: Mapping[str, tuple[RegisteredVersion, ...]]


async def look(context: Context, memory: Memory, *, woken: bool = True) -> Listing | None:
    """None: MLflow shows what it showed before, nobody says that anything else has changed, nothing is left to do."""
    models = await context.registry.models()
    if not woken and _same(memory, tuple(models)):
        return None
    memory.mirrored = None
    await _hook(context, memory)
    async with context.looking() as session:
        known = await discovered.known(session)
    read: dict[str, tuple[RegisteredVersion, ...]] = {}
    for model in models:
        try:
            await _look_at(context, memory, model, known.get(model.name, {}), read)
        except (NotFound, InvalidInput) as exc:  # of one model: the others go on
            _once(memory, f"{model.name}: {exc.detail}")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:  # what strangers put there
            _once(memory, f"{model.name}: cannot be read: {exc!r:.300}")
        except DBAPIError as exc:
            if not str(getattr(exc.orig, "sqlstate", "")).startswith(_DATA_EXCEPTION):
                raise
            _once(memory, f"{model.name}: cannot be kept: {exc.orig!r:.300}")
    for name in known.keys() - {model.name for model in models}:
        await _notice_deleted(context, (), known[name])
    if memory.digesting is None or memory.digesting.done():
        if memory.digesting and (failure := memory.digesting.exception()):
            memory.digesting = None
            raise failure
        memory.digesting = asyncio.create_task(_digests(context, memory), name="digests")
    return Listing(tuple(models), read)


def _same(memory: Memory, models: tuple[RegisteredModel, ...]) -> bool:
    if memory.mirrored != models or memory.undigested or memory.digesting is None or not memory.digesting.done():
        return False
    return bool(models) and all(_read(memory, model) for model in models)


def _read(memory: Memory, model: RegisteredModel) -> bool:
    """Whether all its versions have been read since they last changed, and not too long ago."""
    updated_ms, at = memory.read.get(model.name, (-1, 0.0))
    return model.updated_ms == updated_ms and time.monotonic() - at < _SWEEP_S


async def _look_at(
    context: Context,
    memory: Memory,
    model: RegisteredModel,
    rows: Mapping[str, Known],
    read: dict[str, tuple[RegisteredVersion, ...]],
) -> None:
    if problem := domain.name_problem(model.name):
        await _refuse(context, memory, model, problem)
        return
    if _read(memory, model):
        return
    started = time.monotonic()
    read[model.name] = found = tuple(await context.registry.versions(model.name))
    complete = await _take_in(context, memory, model.name, found, rows)
    await _notice_deleted(context, found, rows)
    if complete:
        memory.read[model.name] = (model.updated_ms, started)


async def _take_in(
    context: Context,
    memory: Memory,
    name: str,
    found: tuple[RegisteredVersion, ...],
    rows: Mapping[str, Known],
) -> bool:
    """Write a row for every new version. False if some could not be read yet; they are tried at the next look."""
    complete = True
    for version in found:
        row = rows.get(version.version)
        if row is not None:
            if not row.deleted and row.source != version.source:
                _once(memory, f"{name} {version.version} was registered twice: the model was deleted and made anew")
            continue
        if not version.ready:
            complete = False
            continue
        try:
            new = await _inspect(context, version)
        except Unavailable as exc:
            log.warning("a version cannot be read yet", model=name, version=version.version, error=exc.detail)
            new = None
        if new is None:
            complete = False
            continue
        async with context.leading() as session:
            await discovered.add(session, new, salt=secrets.token_hex(16))
            await wake.notify(session, f"version {name} {version.version}")
            await audit.append(
                session,
                "version.discovered",
                actor=_MLFLOW,
                object=f"model:{name}",
                trigger="mlflow",
                after={"version": new.version, "digest": new.digest, "runtime": new.runtime, "inferred": new.inferred},
                reasons=new.evidence.get("config_problems", ()),
            )
        log.info("version discovered", model=name, version=version.version, inferred=new.inferred)
    return complete


async def _inspect(context: Context, version: RegisteredVersion) -> ModelVersionRow | None:
    """The version's row, read off its artifact. None while its own pipeline is still tagging it."""
    registry, name, number = context.registry, version.name, version.version
    problems: list[str] = []
    try:
        files = {file.path for file in await registry.files(name, number)}
    except (NotFound, InvalidInput) as exc:
        files, problems = set[str](), [f"artifact: {exc.detail}"]
    ours = f"{domain.NATIVE_FOLDER}/manifest.json" in files
    native = version.tags.get("mlcp.runtime") == "native" or (ours and version.tags.get("mlcp.runtime") is None)
    age_s = (datetime.now(UTC) - version.created_at).total_seconds()
    if ours and not {"mlcp.runtime", "mlcp.digest"} <= version.tags.keys() and age_s < _SETTLE_S:
        return None

    async def read(path: str) -> bytes:
        try:
            return await registry.read(name, number, path)
        except (NotFound, InvalidInput) as exc:
            problems.append(f"{path}: {exc.detail}")
            return b""

    config = None
    if path := next((path for path in _DECLARED if path in files), None):
        config = _declared(name, path, await read(path), problems)
    inferred = config is None
    if config is None:
        mlmodel = _yaml(await read("MLmodel"), "MLmodel", problems) if "MLmodel" in files else {}
        if "MLmodel" not in files and not problems:
            problems.append("artifact: there is no MLmodel file in it")
        guess = domain.infer(name, mlmodel)
        config = _CONFIG.dump_python(guess.config, mode="json")
        problems += guess.problems
        if wrong := storable.reasons(config):
            problems += [f"MLmodel: {why}" for why in wrong]
            config = _CONFIG.dump_python(domain.infer(name, {}).config, mode="json")
    evidence: dict[str, Any] = {}
    if path := next((path for path in _EVIDENCE if path in files), None):
        evidence = _json(await read(path), path, problems)
    if wrong := storable.reasons(evidence):
        problems += [f"{path}: {why}" for why in wrong]
        evidence = {}
    if problems:
        evidence["config_problems"] = [_printable(problem) for problem in problems]
    now, digest = datetime.now(UTC), version.tags.get("mlcp.digest")
    return ModelVersionRow(
        model=name,
        version=number,
        stage=Stage.DEVELOPMENT.value,
        stage_since=now,
        run_id=version.run_id,
        source=version.source,
        digest=digest,
        digest_from="registration" if digest else None,
        runtime="native" if native else "pyfunc",
        config=config,
        inferred=inferred,
        evidence=evidence,
        semver=version.tags.get("mlcp.semver"),
        created_at=version.created_at,
        discovered_at=now,
    )


def _declared(name: str, path: str, content: bytes, problems: list[str]) -> dict[str, Any] | None:
    """A model.yaml that came with the version, as JSON; None, and the reasons in `problems`, if it is no use."""
    said = _yaml(content, path, problems)
    if not said:
        return None
    try:
        config = _CONFIG.validate_python(said)
    except ValidationError as exc:
        problems += [f"{path}: {'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()]
        return None
    if config.name != name:
        problems.append(f"{path}: name is {config.name!r}, but the model is registered as {name!r}")
    dumped = _CONFIG.dump_python(config, mode="json")
    if wrong := storable.reasons(dumped):
        problems += [f"{path}: {why}" for why in wrong]
        return None
    return cast("dict[str, Any]", dumped)


def _yaml(content: bytes, path: str, problems: list[str]) -> dict[str, Any]:
    try:
        parsed: object = yaml.safe_load(content)
    except yaml.YAMLError as exc:
        problems.append(f"{path}: not YAML: {exc}")
        return {}
    except (RecursionError, ValueError) as exc:  # nested too deeply; a date that is none
        problems.append(f"{path}: cannot be read: {exc}")
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _json(content: bytes, path: str, problems: list[str]) -> dict[str, Any]:
    try:
        parsed: object = json.loads(content)
    except (ValueError, RecursionError) as exc:
        problems.append(f"{path}: not JSON: {exc}")
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _printable(problem: str) -> str:
    return problem.encode("utf-8", "replace").decode().replace("\0", "\\0")


async def _notice_deleted(context: Context, found: tuple[RegisteredVersion, ...], rows: Mapping[str, Known]) -> None:
    there = {version.version for version in found}
    for row in rows.values():
        if row.version in there or row.deleted:
            continue
        kept = row.stage in {Stage.STAGING, Stage.PRODUCTION}
        why = f"It is {row.stage} and goes on serving from the artifact kept here." if kept else "Nothing used it."
        async with context.leading() as session:
            await discovered.deleted(session, row.model, row.version, now=datetime.now(UTC))
            await wake.notify(session, f"version {row.model} {row.version}")
            await audit.append(
                session,
                "version.deleted",
                actor=_MLFLOW,
                object=f"model:{row.model}",
                trigger="mlflow",
                before={"version": row.version, "stage": row.stage},
                reasons=[f"Version {row.version} was deleted in MLflow. {why}"],
            )
        log.warning("version deleted in MLflow", model=row.model, version=row.version, stage=row.stage)


async def _digests(context: Context, memory: Memory) -> None:
    """Compute the digest of versions that came without one: what is here now is what will have to be served.

    Newest first, one at a time; only the newest of a model is kept, since a registry may be old and large.
    """
    async with context.looking() as session:
        rows = await discovered.without_digest(session)
        known = await discovered.known(session)
    memory.undigested = bool(rows)
    for row in rows:
        newest = max(known[row.model], key=int) == row.version
        try:
            async with asyncio.timeout(600):
                native = row.runtime == "native"
                digest = await context.artifacts.discover(row.model, row.version, native=native, keep=newest)
        except ControlPlaneError as exc:
            _once(memory, f"no digest of {row.model} {row.version}: {exc.detail}")
            continue
        if digest is None:
            _once(memory, f"no digest of {row.model} {row.version}: its artifact is empty")
            continue
        async with context.leading() as session:
            await discovered.set_digest(session, row.model, row.version, digest)
            await wake.notify(session, f"digest {row.model} {row.version}")
            await audit.append(
                session,
                "version.digest",
                actor=_MLFLOW,
                object=f"model:{row.model}",
                trigger="mlflow",
                after={"version": row.version, "digest": digest, "digest_from": "discovery"},
            )


async def _hook(context: Context, memory: Memory) -> None:
    """Have MLflow tell us at once what the next poll would; where it cannot, polling is enough."""
    url, secret = context.settings.mlflow_webhook_url, context.settings.mlflow_webhook_secret
    if memory.hooked or url is None or secret is None:
        return
    try:
        await context.registry.ensure_webhook("control-plane", url, secret=secret.get_secret_value(), events=_EVENTS)
    except (InvalidInput, NotFound) as exc:
        _once(memory, f"no webhook: {exc.detail}")
    memory.hooked = True


async def _refuse(context: Context, memory: Memory, model: RegisteredModel, problem: str) -> None:
    """Say in MLflow, on the versions themselves, why the model cannot be routed."""
    if memory.read.get(model.name, (-1, 0.0))[0] == model.updated_ms:
        memory.read[model.name] = (model.updated_ms, time.monotonic())
        return
    for version in await context.registry.versions(model.name):
        if version.tags.get("mlcp.gates") != problem:
            await context.registry.set_tag(model.name, version.version, "mlcp.gates", problem)
    memory.read[model.name] = (model.updated_ms, time.monotonic())
    log.warning("a registered model cannot be routed", model=model.name, problem=problem)


def _once(memory: Memory, problem: str) -> None:
    if problem not in memory.told:
        memory.told.add(problem)
        log.warning("registry", problem=problem)
