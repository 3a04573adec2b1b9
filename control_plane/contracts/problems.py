"""RFC 9457 problem document: what every answer with a status of 400 or more is."""

from pydantic import BaseModel, ConfigDict

BASE = "https://errors.control-plane.dev/"  # + slug; the slug is what clients switch on


class Problem(BaseModel):
    """`reasons`: everything that is wrong, not only the first. Further members depend on the type."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str  # BASE + slug
    title: str
    status: int
    detail: str
    instance: str | None = None  # the path asked for
    reasons: list[str] = []
    trace_id: str | None = None  # also in the header X-Request-Id and in every log line of the request

    @property
    def slug(self) -> str:
        return self.type.removeprefix(BASE)
