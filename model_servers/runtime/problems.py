"""Refusals as RFC 9457 problem documents, with every reason there is."""

from collections.abc import Sequence

import msgspec

from model_servers import oip

CONTENT_TYPE = b"application/problem+json"

_BASE = "https://errors.control-plane.dev/"


class Refused(Exception):
    """The request cannot be answered; `status` and `slug` say why, `reasons` say where."""

    def __init__(self, status: int, slug: str, title: str, detail: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.reasons = tuple(reasons)

    def body(self) -> bytes:
        document: dict[str, object] = {
            "type": _BASE + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.reasons:
            document["reasons"] = self.reasons
        return msgspec.json.encode(document)

    def oip_body(self) -> bytes:
        """The same as the Open Inference Protocol says it."""
        return oip.error("; ".join(self.reasons) or self.detail)


def malformed(detail: str) -> Refused:
    """The bytes are no JSON at all (400)."""
    return Refused(400, "malformed-body", "The body is not JSON", detail, [f"body: {detail}"])


def invalid(reasons: Sequence[str]) -> Refused:
    """JSON, but not this model's features (422)."""
    count = f"{len(reasons)} reason" + ("" if len(reasons) == 1 else "s")
    return Refused(
        422, "invalid-input", "Input cannot be used", f"The features do not fit the model: {count}.", reasons
    )


def too_large(limit: int) -> Refused:
    return Refused(413, "too-large", "The body is larger than allowed", f"At most {limit} bytes are read.")


def not_found(path: str) -> Refused:
    return Refused(404, "not-found", "Resource not found", f"There is no {path[:100]} here.")


def wrong_method(method: str, allowed: Sequence[str]) -> Refused:
    detail = f"{method} is not allowed here; use {' or '.join(allowed)}."
    return Refused(405, "method-not-allowed", "Method not allowed", detail)


def model_failed(trace_id: str) -> Refused:
    """The model raised, or answered something that is no number, for features that fit its schema."""
    return Refused(500, "model-failed", "The model could not answer", f"See the server's log, trace {trace_id}.")
