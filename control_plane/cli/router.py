"""`mlcp router`: break glass. Reads and writes files of the data plane's host and nothing else.

It works with the API, Postgres, Redis, MLflow and the reconciler dead. A router looks at the folder of pins several
times a second; a pinned model's whole traffic goes to the pinned version, whatever snapshot comes, until released.
"""

import getpass
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from control_plane.cli.console import Commands, Json, Model, Reason, say, show, table
from control_plane.errors import InvalidInput, NotFound, NotReady, Unavailable

Previous = Annotated[bool, typer.Option("--previous", help="The Production version before this one.")]
Version = Annotated[str | None, typer.Option("--version", help="A version that has a ready server.", metavar="V")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="Break glass: pin traffic with everything else dead.")
    group.command()(pin)
    group.command()(release)
    group.command(name="show")(show_routes)
    app.add_typer(group, name="router")


def pin(
    model: Model, reason: Reason, previous: Previous = False, version: Version = None, as_json: Json = False
) -> None:
    """Send all traffic of MODEL to one version until released.

    The version needs a warm server: the one before Production keeps its own through the bake and MLCP_WARM_S (600).
    """
    if previous == (version is not None):
        raise InvalidInput("Say either --previous or --version V.")
    route = _route(model)
    target = _previous(model, route) if previous else _target(model, route, str(version))
    pinned = {
        "model": model,
        "target": target,
        "version": route["targets"][target]["version"],
        "person": _person(),
        "reason": reason,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    _write(_pins() / f"{model}.json", pinned)
    _journal({"action": "pin", **pinned})
    if as_json:
        show(pinned, True)
    else:
        say(f"{model}: all traffic goes to version {pinned['version']} until `mlcp router release {model}`.")


def release(model: Model, reason: Reason, as_json: Json = False) -> None:
    """Let the snapshot route MODEL again."""
    file = _file(model)
    pinned = _read(file)
    if pinned is None:
        raise NotFound(f"{model} is not pinned.")
    released = {"model": model, "person": _person(), "reason": reason, "at": datetime.now(UTC).isoformat()}
    _journal({"action": "release", **released})
    file.unlink(missing_ok=True)
    if as_json:
        show(released, True)
    else:
        say(f"{model}: released from version {pinned['version']}; the snapshot routes it again.")


def show_routes(as_json: Json = False) -> None:
    """What the routers of this host were last told, and the pins over it."""
    snapshot = _snapshot()
    pins = {file.stem: _read(file) for file in sorted(_pins().glob("*.json"))}
    rows = [
        (name, _answers(route), _version(route, route.get("previous")), _pinned(pins.get(name)))
        for name, route in sorted(snapshot["models"].items())
    ]
    value = {"epoch": snapshot["epoch"], "revision": snapshot["revision"], "models": snapshot["models"], "pins": pins}
    head = f"Snapshot {snapshot['epoch']}:{snapshot['revision']} of {snapshot['created_at']}"
    show(value, as_json, head, "", table(["model", "answers", "=previous", "pin"], rows))


def _folder() -> Path:
    return Path(os.environ.get("MLCP_HOME") or "var").expanduser().absolute() / "router"


def _pins() -> Path:
    return _folder() / "pins"


def _file(model: str) -> Path:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", model):
        raise InvalidInput(f"{model!r} is not a model's name.")
    return _pins() / f"{model}.json"


def _snapshot() -> dict[str, Any]:
    file = _folder() / "snapshot.json"
    found = _read(file)
    if found is None:
        raise NotFound(f"No router of this host has saved a snapshot: there is no {file}.")
    return found


def _route(model: str) -> dict[str, Any]:
    file, routes = _file(model), _snapshot()["models"]
    if model not in routes:
        raise NotFound(f"{file.stem} is not in the snapshot; it routes {', '.join(sorted(routes)) or 'nothing'}.")
    return cast(dict[str, Any], routes[model])


def _target(model: str, route: Mapping[str, Any], version: str) -> str:
    """The key of the target that serves `version`."""
    for key, target in route["targets"].items():
        if target["version"] == version:
            return str(key)
    ready = ", ".join(sorted({target["version"] for target in route["targets"].values()}))
    raise NotReady(f"Version {version} of {model} has no ready server; ready: {ready or 'none'}.")


def _previous(model: str, route: Mapping[str, Any]) -> str:
    target = route.get("previous")
    if target not in route["targets"]:
        ready = ", ".join(sorted({target["version"] for target in route["targets"].values()}))
        raise NotReady(f"{model} has no previous version that is still warm; ready: {ready or 'none'}.")
    return str(target)


def _answers(route: Mapping[str, Any]) -> str:
    """`2 (95 %), 3 (5 %)`: versions by share of traffic, the largest first."""
    shares: dict[str, int] = {}
    for arm in route["arms"]:
        version = route["targets"][arm["target"]]["version"]
        shares[version] = shares.get(version, 0) + arm["weight"]
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return ", ".join(f"{version} ({weight / 100:g} %)" for version, weight in ordered if weight)


def _version(route: Mapping[str, Any], target: str | None) -> str:
    return str(route["targets"][target]["version"]) if target in route["targets"] else ""


def _pinned(pinned: Mapping[str, Any] | None) -> str:
    return f"{pinned['version']} by {pinned['person']}: {pinned['reason']}" if pinned else ""


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return cast(dict[str, Any], json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise Unavailable(f"{file} cannot be read: {exc}") from exc


def _write(file: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all: routers may look at any moment."""
    temporary = file.with_suffix(".tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w") as out:
            json.dump(value, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as exc:
        raise Unavailable(f"{file} cannot be written: {exc.strerror}. Nothing was pinned.") from exc


def _journal(entry: Mapping[str, Any]) -> None:
    """Pins and releases of this host, one JSON line each, for the time no audit can be written."""
    file = _folder() / "pins.ndjson"
    try:
        with file.open("a") as out:
            out.write(json.dumps(entry) + "\n")
    except OSError as exc:
        raise Unavailable(f"{file} cannot be written: {exc.strerror}.") from exc
