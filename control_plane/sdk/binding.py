"""Turn the pure functions that make calls into methods of the clients: one line per call and client.

What a function declares to return, `Call[RolloutView]`, is what its answer is parsed as.
"""

import inspect
import re
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_args, get_type_hints

import httpx

from control_plane.errors import ControlPlaneError
from control_plane.sdk.transport import AsyncTransport, Call, SyncTransport

if TYPE_CHECKING:
    from pydantic import TypeAdapter

P = ParamSpec("P")
T = TypeVar("T")
Into = Callable[[bytes], object]
Method = TypeVar("Method", bound=Callable[..., Any])


def method(build: Callable[P, Call[T]]) -> Callable[Concatenate[SyncTransport, P], T]:
    """A method that sends the call `build` makes and returns its answer."""

    def sending(self: SyncTransport, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _read(build, self.exchange(build(*args, **kwargs)))

    return _described(sending, build)


def coroutine(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncTransport, P], Coroutine[Any, Any, T]]:
    """The same, to be awaited."""

    async def sending(self: AsyncTransport, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _read(build, await self.exchange(build(*args, **kwargs)))

    return _described(sending, build)


def download(build: Callable[P, Call[bytes]]) -> Callable[Concatenate[SyncTransport, Into, P], None]:
    """A method that hands the answer to `into` as it comes, piece by piece."""

    def sending(self: SyncTransport, into: Into, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.download(build(*args, **kwargs), into)

    return _described(sending, build, into="Callable[[bytes], object]")


def async_download(
    build: Callable[P, Call[bytes]],
) -> Callable[Concatenate[AsyncTransport, Into, P], Coroutine[Any, Any, None]]:
    """The same, to be awaited."""

    async def sending(self: AsyncTransport, into: Into, /, *args: P.args, **kwargs: P.kwargs) -> None:
        await self.download(build(*args, **kwargs), into)

    return _described(sending, build, into="Callable[[bytes], object]")


def _read(build: Callable[..., Call[T]], response: httpx.Response) -> T:
    """The answer as the T that `build` declares.

    Raises:
        ControlPlaneError: it does not fit, so one of the two sides is of a release the other does not know.
    """
    from pydantic import ValidationError

    try:
        answer: T = adapter(build).validate_json(response.content or b"null")
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        detail = f"{response.request.url} was answered with something this release does not know: {where}"
        raise ControlPlaneError(f"{detail}: {first['msg']}", status=response.status_code) from exc
    return answer


@lru_cache(maxsize=128)
def adapter(build: Callable[..., Any]) -> "TypeAdapter[Any]":
    """Made on first use: pydantic and the answer's type are imported while the server is already at work."""
    from pydantic import TypeAdapter

    try:
        returned = get_type_hints(build)["return"]
    except NameError:  # an admin call: its answer is not imported with it
        from control_plane.sdk import answers

        words = set(re.findall(r"\w+", " ".join(map(str, build.__annotations__.values()))))
        named = {name: getattr(answers, name) for name in words.intersection(answers.__all__)}
        returned = get_type_hints(build, localns=named)["return"]
    return TypeAdapter(get_args(returned)[0])


def _described(method: Method, build: Callable[..., Any], *, into: str | None = None) -> Method:
    """`method` under the name, documentation and parameters of `build`, so that help() and editors show them."""
    given = inspect.signature(build)
    answer = "None" if into else str(given.return_annotation).removeprefix("Call[").removesuffix("]")
    own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    if into:
        own.append(inspect.Parameter("into", inspect.Parameter.POSITIONAL_ONLY, annotation=into))
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = given.replace(  # type: ignore[attr-defined]
        parameters=[*own, *given.parameters.values()], return_annotation=answer
    )
    return method
