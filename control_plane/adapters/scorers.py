"""One version as a child process that scores rows: what a replay asks instead of a server.

Versions may be anyone's code. The child gets the rows on its stdin, a spec, and an environment that is written down
here: no password, no address and no key of ours is in it. It ends with its stdin.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from control_plane.errors import InvalidInput

_LENGTH: Final = struct.Struct(">I")
_TOLD: Final = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME")
_INSTALLS: Final = ("PIP_", "UV_", "SSL_CERT_", "VIRTUAL_ENV")  # taken away again before the model is loaded
_LAST_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class Version:
    """What has to be known to run one. `artifact`: its verified tree; `config`: model.yaml as JSON."""

    model: str
    version: str
    digest: str
    runtime: str
    artifact: Path
    config: Mapping[str, Any]
    inferred: bool = False


class Scored(msgspec.Struct):
    """One entry per row; see `model_servers.runtime.score`."""

    score: list[float]
    said: list[str | None]
    refused: list[tuple[int, str, str]]  # position, feature, reason
    batch_us: list[tuple[int, float]]
    single_us: list[float]


class Scorer:
    """A running child. `score` may be called by one thread at a time; leaving the context ends it."""

    def __init__(self, version: Version, *, home: Path) -> None:
        """`home`: MLCP_HOME, where environments of foreign models are built and kept."""
        self._version = version
        self._scratch = tempfile.TemporaryDirectory(prefix="mlcp-replay-")
        file = Path(self._scratch.name) / "spec.json"
        file.write_text(json.dumps(_spec(version, home)))
        self._errors = (Path(self._scratch.name) / "stderr").open("w+b")
        self._process = subprocess.Popen(  # noqa: S603  (our own interpreter, no shell)
            [sys.executable, "-m", "model_servers.launch", "--score", "--spec", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
            cwd=self._scratch.name,
        )
        self._decode = msgspec.msgpack.Decoder(Scored).decode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._scratch.cleanup()

    def wait_ready(self, timeout_s: float) -> None:
        """Until the model is loaded; an environment may have to be built. Raises InvalidInput when it cannot be."""
        self._within(timeout_s, "be loaded", self._read)

    def score(
        self, features: Sequence[str], *, siblings: str = "", singles: int = 0, timeout_s: float = 600.0
    ) -> Scored:
        """Raises InvalidInput when the version died or took too long."""
        ask = msgspec.msgpack.encode({"features": features, "siblings": siblings, "singles": singles})
        return self._decode(self._within(timeout_s, "score rows", lambda: self._exchange(ask)))

    def _exchange(self, ask: bytes) -> bytes:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_LENGTH.pack(len(ask)) + ask)
            self._process.stdin.flush()
        except OSError as exc:
            raise self._failed("score rows") from exc
        return self._read()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        head = self._process.stdout.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise self._failed("be run")
        (size,) = _LENGTH.unpack(head)
        frame = self._process.stdout.read(size)
        if len(frame) < size:
            raise self._failed("be run")
        return frame

    def _within(self, timeout_s: float, what: str, call: "Any") -> bytes:
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            answer: bytes = call()
            return answer
        except InvalidInput as exc:
            if late.is_set():
                raise InvalidInput(f"{self._name} could not {what} within {timeout_s:.0f} s.") from exc
            raise
        finally:
            timer.cancel()

    @property
    def _name(self) -> str:
        return f"Version {self._version.version} of {self._version.model}"

    def _failed(self, what: str) -> InvalidInput:
        self._process.kill()
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        said = " ".join(_event(line) for line in lines) or "it said nothing"
        return InvalidInput(f"{self._name} could not {what}: it ended with {code}. {said}")


def _spec(version: Version, home: Path) -> dict[str, object]:
    return {
        "model": version.model,
        "version": version.version,
        "digest": version.digest,
        "artifact": str(version.artifact),
        "runtime": version.runtime,
        "socket": "-",
        "config": version.config,
        "inferred": version.inferred,
        "cache_dir": str(home / "cache" / "envs"),
    }


def _environment() -> dict[str, str]:
    """What the child may know: how to find Python and, until it is loaded, packages."""
    installs = {name: value for name, value in os.environ.items() if name.startswith(_INSTALLS)}
    return installs | {name: os.environ[name] for name in _TOLD if name in os.environ}


def _event(line: str) -> str:
    """What a line of the log says."""
    try:
        return str(msgspec.json.decode(line.encode(), type=dict[str, object])["event"])
    except (msgspec.MsgspecError, KeyError):
        return line[:300]
