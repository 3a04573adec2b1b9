"""What every wire model shares: frozen, strict on what comes in, lenient on what newer servers add."""

import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from control_plane.domain.assignment import BUCKETS


def storable(text: str) -> str:
    """Postgres keeps every character but this one."""
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    return text


PER_PERCENT = BUCKETS // 100
Percent = Annotated[float, Field(ge=0, le=100, multiple_of=0.01)]  # 0.01 is one bucket
# Rust's regex, which pydantic uses: "$" is the very end, not "before a trailing newline".
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}$")]  # MLflow's integer as a string
Text = Annotated[str, AfterValidator(storable)]
NOT_BLANK: JsonDict = {"pattern": r"\S"}  # for the document: space around a text is taken away before it is looked at
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000),
    AfterValidator(storable),
    Field(json_schema_extra=NOT_BLANK),
]


# The years a clock of this system may mean: every sum with a duration stays within what Python and Postgres can say.
_MOMENT = r"^(19|20|21)\d\d-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)$"


def _read(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and re.fullmatch(_MOMENT, value, re.ASCII):
        with suppress(ValueError):  # a day or an hour that does not exist
            return datetime.fromisoformat(value.upper())
    raise ValueError("must be a date and time with its offset, such as 2026-01-31T08:00:00Z, of the years 1900 to 2199")


Moment = Annotated[
    AwareDatetime, BeforeValidator(_read), Field(json_schema_extra={"pattern": _MOMENT.replace(r"\d", "[0-9]")})
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
