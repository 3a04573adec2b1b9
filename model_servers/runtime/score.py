"""`python -m model_servers.launch --score --spec FILE`: one version as a filter, for replays. No network.

Frames on stdin and stdout: four bytes of length, big-endian, then MessagePack. The first frame out says that the model
is loaded. Then for every `Ask` in, an `Answers` out, until stdin ends. What the model itself prints goes to stderr.

The process decodes, checks and scores as a server does, and knows nothing but its spec: no address, no password.

Exit codes: 0 at the end of stdin, 3 the artifact is not what was registered, 4 it cannot be loaded.
"""

import argparse
import logging
import os
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from model_servers.runtime import logs, spec
from model_servers.runtime.spec import Spec

if TYPE_CHECKING:
    from model_servers.runtime.engine import Engine
    from model_servers.runtime.features import Decoder, Row

DIGEST_MISMATCH, UNUSABLE = 3, 4
_LENGTH: Final = struct.Struct(">I")
_NICE: Final = 5  # beyond what reads, sends and folds the rows of a replay
_AT_ONCE: Final = 1_024  # rows in one call of the model
_log = logging.getLogger(__name__)


class Ask(msgspec.Struct):
    """`features`: JSON objects. `siblings`: features of other versions, which are ignored, comma-separated.
    `singles`: how many of them are timed alone as well."""

    features: list[str]
    siblings: str = ""
    singles: int = 0


class Answers(msgspec.Struct):
    """One entry per row. `score`: NaN where the answer holds no number; `said`: the decision or label, None for none.
    `refused`: position, feature and what is wrong, without the value. Times in microseconds, decoding included."""

    score: list[float]
    said: list[str | None]
    refused: list[tuple[int, str, str]]
    batch_us: list[tuple[int, float]]  # rows of a call and the time of it
    single_us: list[float]


class _Output(msgspec.Struct):
    probability: object = None
    value: object = None
    label: object = None


class _Answer(msgspec.Struct):
    output: _Output
    decision: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_servers.runtime.score", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="spec file (JSON)")
    path: Path = parser.parse_args(argv).spec
    logs.configure("model-replay")
    os.nice(_NICE)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stranger's print must not become a frame
    try:
        wanted = spec.load(path)
        engine = _loaded(wanted)
    except _Different as exc:
        _log.error("refused: the artifact is not the one registered: %s", exc)
        return DIGEST_MISMATCH
    except Exception as exc:  # noqa: BLE001  (whatever a foreign model raises; no row has been seen yet)
        _log.error("the version cannot be loaded: %s: %s", type(exc).__name__, exc)
        return UNUSABLE
    from model_servers.runtime.features import Decoder

    _write(out, msgspec.msgpack.encode({"features": list(engine.features)}))
    decoder = Decoder(engine.features, lambda name, kind: None)
    decode = msgspec.msgpack.Decoder(Ask).decode
    while (frame := _read(sys.stdin.buffer)) is not None:
        _write(out, msgspec.msgpack.encode(answer(engine, decoder, decode(frame))))
    return 0


class _Different(Exception):
    """The artifact's digest is another one."""


def _loaded(wanted: Spec) -> "Engine":
    """Raises _Different, BadSpec, or whatever the model raises."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(wanted.threads)  # read when the libraries are loaded, which is below
    from model_servers.native import digest

    found = digest.of_folder(Path(wanted.artifact))
    if found != wanted.digest:
        raise _Different(f"digest {found}, not {wanted.digest}")
    engine: Engine
    if wanted.runtime == "native":
        from model_servers.runtime.native_engine import NativeEngine

        engine = NativeEngine(Path(wanted.artifact), wanted.config, threads=wanted.threads)
    else:
        from model_servers.runtime.pyfunc_engine import PyfuncEngine

        engine = PyfuncEngine(Path(wanted.artifact), wanted.config)
    engine.load()
    return engine


def answer(engine: "Engine", decoder: "Decoder", ask: Ask) -> Answers:
    """What the version says to every row, as a server of it would."""
    n = len(ask.features)
    made = Answers([float("nan")] * n, [None] * n, [], [], [])
    siblings = ask.siblings.encode()
    at_once = _AT_ONCE if engine.rows_at_once else 1
    for begin in range(0, n, at_once):
        _score(engine, decoder, ask.features, range(begin, min(n, begin + at_once)), siblings, made)
    if ask.singles:
        refused = {at for at, _, _ in made.refused}
        for at in range(0, n, max(1, n // ask.singles)):
            if at not in refused:
                began = time.perf_counter()
                with suppress(Exception):
                    engine.answers([_row(decoder, ask.features[at], siblings)], hurried=True)
                    made.single_us.append((time.perf_counter() - began) * 1e6)
    return made


def _row(decoder: "Decoder", features: str, siblings: bytes) -> "Row":
    return decoder.row(b'{"features":%b}' % features.encode(), siblings)


def _score(
    engine: "Engine", decoder: "Decoder", features: Sequence[str], span: range, siblings: bytes, made: Answers
) -> None:
    from model_servers.runtime.problems import Refused

    began, rows, mine = time.perf_counter(), list["Row"](), list[int]()
    for at in span:
        try:
            rows.append(_row(decoder, features[at], siblings))
            mine.append(at)
        except Refused as exc:
            made.refused.append((at, *_reason(exc)))
    if not rows:
        return
    try:
        said = engine.answers(rows, hurried=True)
        made.batch_us.append((len(rows), (time.perf_counter() - began) * 1e6))
    except Exception as exc:  # noqa: BLE001  (the model's own code: which rows are they?)
        if len(rows) == 1:
            made.refused.append((mine[0], "", f"the model raised {type(exc).__name__}"))
            return
        for at in mine:
            _score(engine, decoder, features, range(at, at + 1), siblings, made)
        return
    for at, one in zip(mine, said, strict=True):
        _keep(made, at, one)


def _keep(made: Answers, at: int, said: bytes) -> None:
    try:
        found = _decode(said)
    except msgspec.MsgspecError:  # a stranger's answer that is no object with names of ours
        return
    output = found.output
    number = output.probability if isinstance(output.probability, int | float) else output.value
    if isinstance(number, int | float) and not isinstance(number, bool):
        made.score[at] = float(number)
    for word in (found.decision, output.label, output.value):
        if isinstance(word, str):
            made.said[at] = word
            return


_decode = msgspec.json.Decoder(_Answer).decode


def _reason(refused: Exception) -> tuple[str, str]:
    """The first reason as feature and words; what was given instead is left out, for it may be personal."""
    reasons: tuple[str, ...] = getattr(refused, "reasons", ())
    first = reasons[0] if reasons else str(refused)
    name, _, why = first.partition(": ")
    expected, _, got = why.partition(", got ")
    return name.removeprefix("features."), f"{expected}, got null" if got == "null" else expected


def _read(source: BinaryIO) -> bytes | None:
    """The next frame; None at the end."""
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    frame = source.read(size)
    return frame if len(frame) == size else None


def _write(out: BinaryIO, frame: bytes) -> None:
    out.write(_LENGTH.pack(len(frame)))
    out.write(frame)
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
