"""From an answer that is an error, or from none at all, to the exception of `control_plane.errors` it stands for."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import httpx

from control_plane import errors
from control_plane.errors import ControlPlaneError, DeadlineExceeded, Unavailable

_STANDARD = frozenset({"type", "title", "detail", "status", "event", "fraction"})  # the last two: of a subprocess

# For answers without a slug of ours: a proxy's page, a server of a later release.
_BY_STATUS: dict[int, type[ControlPlaneError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidInput,
    428: errors.PreconditionRequired,
    429: errors.RateLimited,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


def from_response(response: httpx.Response) -> ControlPlaneError:
    """The exception for an answer >= 400: by the document's slug, else by the status.

    `extra` keeps every extension member (`reasons`, `trace_id`, ...) and the status as it came.
    """
    asked = f"{response.request.method} {response.request.url.path}"
    silent = f"{asked} was answered with status {response.status_code}."
    return from_document(_object(response.content), silent, status=response.status_code)


def from_document(document: Mapping[str, Any], silent: str, *, status: int | None = None) -> ControlPlaneError:
    """The exception a problem document stands for; `silent` is its text where the document has none."""
    slug = str(document.get("type", "")).rsplit("/", 1)[-1]
    known = {error.type: error for error in _tree(ControlPlaneError)}
    error = known.get(slug) or _BY_STATUS.get(status or 500, ControlPlaneError)
    extra = {name: value for name, value in document.items() if name not in _STANDARD}
    return error(
        str(document.get("detail") or document.get("title") or silent),
        **extra,
        **({} if status is None else {"status": status}),
    )


def from_transport(exc: httpx.HTTPError, url: str) -> ControlPlaneError:
    """The exception for an exchange that gave no answer."""
    if isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout):
        return DeadlineExceeded(f"{url} gave no answer in time.")
    return Unavailable(f"{url} does not answer: {str(exc) or type(exc).__name__}")


def reasons(error: ControlPlaneError) -> list[str]:
    """Every reason of a refusal, one sentence each; empty when the detail says it all."""
    given: list[object] = error.extra.get("reasons") or []
    return [str(reason) for reason in given]


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object it is; empty for anything else."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _tree(root: type[ControlPlaneError]) -> Iterator[type[ControlPlaneError]]:
    yield root
    for error in root.__subclasses__():
        yield from _tree(error)
