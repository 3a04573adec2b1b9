"""One exchange with the control plane, written once for both clients.

A `Call` says what is asked and what the answer is; it is made by pure functions (`admin`, `predictions`). The clients
only carry it over: `SyncTransport` and `AsyncTransport` differ in `await` and in nothing else.

Retries: exponential back-off with full jitter, on a connection that failed or a 502, 503 or 504, and only for calls
that may be sent twice (reads, and writes under an Idempotency-Key). A Retry-After is honoured. A 4xx is final.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from control_plane.sdk import problems

T = TypeVar("T")
_BUSY = frozenset({502, 503, 504})
_LONGEST_WAIT_S = 30.0  # a server that asks for more gets one last try after this


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request whose answer is a T. `repeatable`: sending it twice does what sending it once does."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    body: object = None  # JSON-ready
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    repeatable: bool = True
    timeout_s: float | None = None  # instead of the client's own


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client keeps trying: `attempts` in all, no new one after `budget_s` seconds."""

    attempts: int = 5
    budget_s: float = 60.0
    first_wait_s: float = 0.25  # upper bound of the first wait, doubling from there


def path(*parts: object) -> str:
    """`/models/churn/versions`, whatever characters the parts hold."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def read(path: str, **query: object) -> Call[Any]:
    """A GET; parameters that are None are left out."""
    return Call("GET", path, query={name: _text(value) for name, value in query.items() if value is not None})


def write(method: str, path: str, body: object, *, key: str | None = None, match: str | None = None) -> Call[Any]:
    """A change under an Idempotency-Key, made here unless the caller brings one; `match` becomes If-Match."""
    headers = {"Idempotency-Key": key or uuid4().hex}
    if match is not None:
        headers["If-Match"] = match
    return Call(method, path, body=body, headers=headers)


class SyncTransport:
    """A pool of connections to one server. Close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float,
        patience: Patience,
        transport: httpx.BaseTransport | None = None,
        program: str = "sdk",
    ) -> None:
        self._url, self._patience = url, patience
        self._http = httpx.Client(
            base_url=url, headers=_headers(key, program), timeout=timeout_s, transport=transport, **_connection(url)
        )

    def exchange(self, call: Call[Any]) -> httpx.Response:
        """The answer to `call`, a success. Raises the ControlPlaneError the server, or its silence, stands for."""
        try:
            retrying = Retrying(**_policy(call, self._patience))
            response: httpx.Response = retrying(self._http.request, **_arguments(call))
        except httpx.HTTPError as exc:
            raise problems.from_transport(exc, self._url) from exc
        return _success(response)

    def pour(self, path: str, content: Iterable[bytes], into: Callable[[bytes], object], **options: Any) -> None:
        """POST a body in pieces and hand on the answer in pieces, whatever their sizes. Not tried again."""
        try:
            with self._http.stream("POST", path, content=content, **options) as response:
                if response.status_code >= 400:
                    response.read()
                _success(response)
                for piece in response.iter_bytes():
                    into(piece)
        except httpx.HTTPError as exc:
            raise problems.from_transport(exc, self._url) from exc

    def download(self, call: Call[Any], into: Callable[[bytes], object]) -> None:
        """Hand on an answer of any size in pieces. Not tried again: some of it may have been handed on."""
        try:
            with self._http.stream(**_arguments(call)) as response:
                if response.status_code >= 400:
                    response.read()
                for piece in _success(response).iter_bytes():
                    into(piece)
        except httpx.HTTPError as exc:
            raise problems.from_transport(exc, self._url) from exc

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTransport:
    """The same for asyncio. Its pool belongs to the event loop that first used it."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float,
        patience: Patience,
        transport: httpx.AsyncBaseTransport | None = None,
        connections: int = 100,
        program: str = "sdk",
    ) -> None:
        self._url, self._patience = url, patience
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=_headers(key, program),
            timeout=timeout_s,
            transport=transport,
            limits=limits,
            **_connection(url),
        )

    async def exchange(self, call: Call[Any]) -> httpx.Response:
        """As `SyncTransport.exchange`."""
        try:
            retrying = AsyncRetrying(**_policy(call, self._patience))
            response: httpx.Response = await retrying(self._http.request, **_arguments(call))
        except httpx.HTTPError as exc:
            raise problems.from_transport(exc, self._url) from exc
        return _success(response)

    async def pour(self, path: str, content: Iterable[bytes], into: Callable[[bytes], object], **options: Any) -> None:
        """As `SyncTransport.pour`."""

        async def pieces() -> AsyncIterator[bytes]:
            for piece in content:
                yield piece

        try:
            async with self._http.stream("POST", path, content=pieces(), **options) as response:
                if response.status_code >= 400:
                    await response.aread()
                _success(response)
                async for piece in response.aiter_bytes():
                    into(piece)
        except httpx.HTTPError as exc:
            raise problems.from_transport(exc, self._url) from exc

    async def download(self, call: Call[Any], into: Callable[[bytes], object]) -> None:
        """As `SyncTransport.download`."""
        try:
            async with self._http.stream(**_arguments(call)) as response:
                if response.status_code >= 400:
                    await response.aread()
                async for piece in _success(response).aiter_bytes():
                    into(piece)
        except httpx.HTTPError as exc:
            raise problems.from_transport(exc, self._url) from exc

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _connection(url: str) -> dict[str, Any]:
    """Of a server on this host no proxy is asked. Without TLS no certificates are loaded: that takes 0.1 s."""
    parsed = httpx.URL(url)
    options: dict[str, Any] = {"trust_env": parsed.host not in {"127.0.0.1", "localhost", "::1"}}
    if parsed.scheme == "http":
        options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return options


def _headers(key: str, program: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Accept": "application/json", "User-Agent": f"mlcp-{program}"}


def _success(response: httpx.Response) -> httpx.Response:
    if response.status_code >= 400:
        raise problems.from_response(response)
    return response


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _arguments(call: Call[Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"method": call.method, "url": call.path, "headers": dict(call.headers)}
    if call.query:
        arguments["params"] = dict(call.query)
    if call.body is not None:
        arguments["json"] = call.body
    if call.timeout_s is not None:
        arguments["timeout"] = call.timeout_s
    return arguments


def _policy(call: Call[Any], patience: Patience) -> dict[str, Any]:
    attempts = patience.attempts if call.repeatable else 1
    backoff = wait_random_exponential(multiplier=patience.first_wait_s, max=8)

    def wait(state: RetryCallState) -> float:
        asked = None
        if state.outcome is not None and not state.outcome.failed:
            asked = retry_after(state.outcome.result(), now=datetime.now(UTC))
        return backoff(state) if asked is None else min(asked, _LONGEST_WAIT_S)

    return {
        "stop": stop_after_attempt(attempts) | stop_before_delay(patience.budget_s),
        "wait": wait,
        "retry": retry_if_exception(_dropped) | retry_if_result(_is_busy),
        "retry_error_callback": _last,
    }


def retry_after(response: httpx.Response, *, now: datetime) -> float | None:
    """Seconds the server asks us to wait (never negative), None if it does not say or nobody can read it."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _dropped(exc: BaseException) -> bool:
    """Whether no answer came because of the connection. A read that timed out is not sent again: it may still run."""
    return isinstance(exc, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)


def _is_busy(response: httpx.Response) -> bool:
    return response.status_code in _BUSY


def _last(state: RetryCallState) -> httpx.Response:
    """Out of attempts: the last answer, or the last exception raised anew."""
    assert state.outcome is not None
    return state.outcome.result()  # type: ignore[no-any-return]


def body(**given: object) -> dict[str, object]:
    """The JSON-ready body; what is None is left to the server."""
    return {name: value for name, value in given.items() if value is not None}
