"""Refusals of the data plane as RFC 9457 problem documents, each with every reason there is."""

from collections.abc import Sequence
from typing import Any, Self
from uuid import uuid4

import msgspec
import structlog

from control_plane import errors
from model_servers import oip

_BASE = "https://errors.control-plane.dev/"  # + slug
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Refused(Exception):
    """The request gets this answer and no other."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        reasons: Sequence[str] = (),
        retry_after_s: int = 0,
        headers: bytes = b"",
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.reasons = tuple(reasons)
        self.retry_after_s = retry_after_s
        self.headers = headers
        self.extra = extra

    @classmethod
    def of(
        cls, kind: type[errors.ControlPlaneError], detail: str, *, reasons: Sequence[str] = (), **extra: Any
    ) -> Self:
        """What the error tree says about `kind`. Everything with status 503 may be tried again in a second."""
        retry = 1 if kind.status == 503 else 0
        headers = b"www-authenticate: Bearer\r\n" if kind.status == 401 else b""
        reasons = reasons or [detail]
        return cls(
            kind.status, kind.type, kind.title, detail, reasons=reasons, retry_after_s=retry, headers=headers, **extra
        )

    @classmethod
    def invalid(cls, reasons: Sequence[str]) -> Self:
        """422: the body is not what its schema says; `reasons` name the members."""
        return cls.of(errors.InvalidInput, "The request does not fit its schema.", reasons=reasons)

    @classmethod
    def too_large(cls, limit: int) -> Self:
        return cls.of(errors.TooLarge, f"At most {limit} bytes of body are read.")

    @classmethod
    def crashed(cls, path: bytes, exc: Exception, request_id: bytes | None = None) -> Self:
        """An error nobody foresaw: the client learns a trace id, the log everything else."""
        trace_id = uuid4().hex
        shown = None if request_id is None else request_id.decode("ascii", "replace")
        _log.error(
            "request.crashed",
            trace_id=trace_id,
            request_id=shown,
            path=path.decode("ascii", "replace"),
            exc_info=exc,
        )
        return cls(500, "internal", "Internal error", f"Trace {trace_id} in the router's log.", trace_id=trace_id)

    def oip(self) -> tuple[int, bytes]:
        """Status and error object for who speaks the Open Inference Protocol, which says 400 where we say 422."""
        return 400 if self.status == 422 else self.status, oip.error("; ".join(self.reasons) or self.detail)

    def body(self, instance: str) -> bytes:
        document: dict[str, object] = {
            "type": _BASE + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.reasons:
            document["reasons"] = self.reasons
        return msgspec.json.encode(document | self.extra)


def speaks_oip(path: bytes) -> bool:
    """`/v2...` and `/ml/{model}/v2...` are the Open Inference Protocol's."""
    parts = path.split(b"/", 4)
    return parts[1:2] == [b"v2"] or (parts[1:2] == [b"ml"] and parts[3:4] == [b"v2"])
