"""What every wire model shares: frozen, strict on what comes in, lenient on what newer servers add."""

from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from control_plane.domain.assignment import BUCKETS


def _storable(text: str) -> str:
    """Postgres keeps every character but this one."""
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    return text


PER_PERCENT = BUCKETS // 100
Percent = Annotated[float, Field(ge=0, le=100, multiple_of=0.01)]  # 0.01 is one bucket
# Rust's regex, which pydantic uses: "$" is the very end, not "before a trailing newline".
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}$")]  # MLflow's integer as a string
Text = Annotated[str, AfterValidator(_storable)]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000), AfterValidator(_storable)
]


class Request(BaseModel):
    """A body we receive: an unknown member is refused by name, NaN and infinity too."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class View(BaseModel):
    """A body we send. Clients ignore members they do not know."""

    model_config = ConfigDict(frozen=True)


Item = TypeVar("Item")


class Page(View, Generic[Item]):
    """A slice of a list, in its stated order. `next` goes into `cursor=` for the slice after it; None: the end."""

    items: list[Item]
    next: str | None = None
