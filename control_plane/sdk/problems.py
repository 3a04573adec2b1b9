"""From an answer that is an error, or from none at all, to the exception of `control_plane.errors` it stands for."""

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx

from control_plane import errors
from control_plane.errors import ControlPlaneError, DeadlineExceeded, Unavailable

# For answers without a slug of ours: a proxy's page, a server of a later release.
_BY_STATUS: dict[int, type[ControlPlaneError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidInput,
    428: errors.PreconditionRequired,
    429: errors.Overloaded,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


def from_response(response: httpx.Response) -> ControlPlaneError:
    """The exception for an answer >= 400: by the document's slug, else by the status.

    `extra` keeps every extension member (`reasons`, `trace_id`, ...) and the status as it came.
    """
    document = _document(response)
    slug = str(document.pop("type", "")).rsplit("/", 1)[-1]
    known = {error.type: error for error in _tree(ControlPlaneError)}
    error = known.get(slug) or _BY_STATUS.get(response.status_code, ControlPlaneError)
    title, detail = document.pop("title", None), document.pop("detail", None)
    asked = f"{response.request.method} {response.request.url.path}"
    return error(
        str(detail or title or f"{asked} was answered with status {response.status_code}."),
        **{**document, "status": response.status_code},
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


def _document(response: httpx.Response) -> dict[str, Any]:
    """The RFC 9457 members; empty for an answer that is no such document."""
    try:
        found = json.loads(response.content)
    except ValueError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _tree(root: type[ControlPlaneError]) -> Iterator[type[ControlPlaneError]]:
    yield root
    for error in root.__subclasses__():
        yield from _tree(error)
