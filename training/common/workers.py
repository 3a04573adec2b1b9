"""Dask workers for what is too much for one process: local ones, or those a scheduler has. The only module with Dask.

Workers run this distribution's own code: those of a scheduler need it installed, with the extras of what they do.
"""

import importlib
import importlib.util
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import MOST_WORKERS
from control_plane.errors import InvalidInput, Unavailable

NEEDS = ("dask", "distributed")  # what the extra `distributed` brings
_LEAST_ROWS = 500  # below, a further worker costs more than it helps
_ANSWERS_S = 20  # a scheduler
_STARTED_S = 120  # its first worker, or a lost one's successor
_NOTICED_S = 30  # how long a connection that broke may be thought alive
_UNWINDS_S = 60  # what a lost worker was part of fails by itself within this
_ATTEMPTS = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the workers are. `local`: as many processes of this host; 0: those of the scheduler at this address."""

    local: int = 0
    scheduler: str = ""


def place(local: int | None, scheduler: str | None) -> Place | None:
    """Of what was asked for on the command line. None: nothing was, this process does it all."""
    if local is not None and scheduler:
        raise InvalidInput("Give either --workers, processes of this host, or --scheduler, which has workers.")
    if scheduler:
        return Place(scheduler=scheduler)
    if local is None or local == 0:
        return None
    if not 1 <= local <= MOST_WORKERS:
        raise InvalidInput(f"--workers: {local} is not within 1..{MOST_WORKERS}.")
    return Place(local=local)


@dataclass(frozen=True, slots=True)
class Workers:
    """Connected ones. `client`: a distributed.Client. `where`: them, in a message."""

    client: Any
    where: str

    def addresses(self) -> list[str]:
        return sorted(self.client.nthreads())

    def each(self, function: Callable[..., T], *arguments: Iterable[Any], shared: Sequence[Any] = ()) -> list[T]:
        """`function` of every tuple of arguments, in order, with `shared` behind them, which a worker gets only once.

        What a lost worker had is done again by another. Raises what `function` raises, and Unavailable when there is
        nobody to work, or when one task has lost several workers.
        """
        killed = importlib.import_module("distributed").KilledWorker
        given = [self.client.submit(_itself, one, pure=False) for one in shared]  # scattered, it could be lost
        tuples = list(zip(*arguments, strict=True))
        try:
            submitted = [self.client.submit(function, *one, *given, pure=False) for one in tuples]
            found: list[T] = self.client.gather(submitted)
        except killed as exc:
            raise Unavailable(f"Several workers of {self.where} were lost over the same piece: {exc}") from exc
        return found

    def holders(self, rows: int) -> list[str]:
        """The workers that hold so many rows together."""
        return self.addresses()[: max(1, rows // _LEAST_ROWS)]

    def held(
        self, values: NDArray[Any], holders: Sequence[str], made: Callable[..., Any] | None = None, *by: Any
    ) -> Any:
        """`values` as a dask.array, a block of rows on each of `holders`; there `made(block, *by)` takes its place."""
        array = importlib.import_module("dask.array")
        blocks: list[Any] = []
        for block, holder in zip(np.array_split(values, len(holders)), holders, strict=True):
            future = self.client.scatter(block, workers=[holder], hash=False)
            if made is not None:
                future = self.client.submit(made, future, *by, workers=[holder], pure=False)
            blocks.append(array.from_delayed(future, shape=block.shape, dtype=block.dtype))
        return array.concatenate(blocks)

    def together(self, work: Callable[[], T]) -> T:
        """`work`, which needs all workers at once to the end: begun anew, with those that are left, if one is lost.

        Raises Unavailable if that comes again and again, or if nobody is left.
        """
        for _ in range(_ATTEMPTS):
            before = self.addresses()
            if not before:
                break
            try:
                return self._watched(work, before)
            except Exception as exc:
                if isinstance(exc, Unavailable) or not self._lost(before):
                    raise
            self._replaced(len(before))
        raise Unavailable(f"Workers of {self.where} were lost {_ATTEMPTS} times over the same work: it was given up.")

    def _watched(self, work: Callable[[], T], before: Sequence[str]) -> T:
        """A lost worker usually breaks `work` at once; where it does not, nobody waits for ever."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as exc:  # noqa: BLE001  # raised again where it is waited for
                done.set_exception(exc)

        threading.Thread(target=run, daemon=True).start()
        since: float | None = None
        while not done.done():
            if set(before) - set(self.addresses()):
                since = since or time.monotonic()
                if time.monotonic() - since > _UNWINDS_S:
                    raise Unavailable(f"A worker of {self.where} was lost, and the others went on waiting for it.")
            time.sleep(0.2)
        return done.result()

    def _lost(self, before: Sequence[str]) -> bool:
        until = time.monotonic() + _NOTICED_S
        while not (gone := set(before) - set(self.addresses())) and time.monotonic() < until:
            time.sleep(0.2)
        return bool(gone)

    def _replaced(self, wanted: int) -> None:
        """Wait for the successor of a lost worker; without one, those that are left will do."""
        until = time.monotonic() + _STARTED_S
        while len(self.addresses()) < wanted and time.monotonic() < until:
            time.sleep(0.2)


@contextmanager
def opened(at: Place, *, threads: int = 1) -> Generator[Workers]:
    """Start or find the workers. `threads`: of all local ones together.

    Raises:
        Unavailable: Dask is not installed, the scheduler does not answer or has no worker, or workers lack our code.
    """
    missing = [module for module in NEEDS if importlib.util.find_spec(module) is None]
    if missing:
        raise Unavailable(f"Workers need {', '.join(missing)}; pip install 'mlcp[distributed]' brings them.")
    distributed = importlib.import_module("distributed")
    with ExitStack() as stack:
        where = at.scheduler or "this host"
        if at.scheduler:
            try:
                client = stack.enter_context(distributed.Client(at.scheduler, timeout=_ANSWERS_S))
                client.wait_for_workers(1, timeout=_STARTED_S)
            except (OSError, TimeoutError, ValueError) as exc:
                raise Unavailable(f"No Dask scheduler with workers answers at {at.scheduler}: {exc}") from exc
        else:
            client = stack.enter_context(_started(distributed, at.local, threads, stack))
        try:
            client.run(_here)
        except Exception as exc:
            lacking = f"The workers of {where} cannot run this: they need the same mlcp, with its extras."
            raise Unavailable(f"{lacking} {type(exc).__name__}: {exc}") from exc
        yield Workers(client, where)


def _started(distributed: Any, local: int, threads: int, stack: ExitStack) -> Any:
    """Processes that only we can speak to: others of this host could have them run anything, too."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-dask-", ignore_cleanup_errors=True))
    cluster = distributed.LocalCluster(
        n_workers=local,
        threads_per_worker=max(1, threads // local),
        processes=True,
        protocol="tls://",
        security=distributed.Security.temporary(),
        dashboard_address=None,
        local_directory=folder,
        silence_logs=logging.CRITICAL,
        preload=__name__,
    )
    return distributed.Client(stack.enter_context(cluster))


def dask_setup(worker: Any) -> None:  # Dask calls it in each local worker
    """What libraries print there is no progress of ours."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def _itself(value: T) -> T:
    return value


def _here() -> None:
    """Does nothing: that it can be run says that our code is there."""
