"""JSON bodies taken at their word: `Json[Spec]` is what a route reads.

A framework's reading is obliging: true passes for 1, "5" for 5, 0 for a date in 1970. Whoever sends those means
something else, and the OpenAPI document says so; here they are refused. Nor does anything pass, at any depth, that
Postgres cannot keep: U+0000, half a surrogate pair, NaN, infinity.
"""

import json
from functools import cached_property
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from control_plane.domain import storable

T = TypeVar("T")


class _Literal:
    """Reads what was decoded as the JSON it was, in pydantic's strict mode; the schema stays that of the type."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        reader = _Reader(source)
        return core_schema.no_info_wrap_validator_function(lambda value, _: reader.read(value), handler(source))


class _Reader:
    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._wanted)

    def read(self, value: Any) -> Any:
        """Raises ValidationError with the place of everything that is wrong."""
        wrong: list[InitErrorDetails] = [
            {"type": PydanticCustomError("unstorable", "{why}", {"why": why}), "loc": place, "input": None}
            for place, why in storable.problems(value)
        ]
        if wrong:
            raise ValidationError.from_exception_data("body", wrong)
        if isinstance(value, bytes):  # not sent as JSON: the type says what it wants instead
            return self._adapter.validate_python(value)
        return self._adapter.validate_json(json.dumps(_whole(value)), strict=True)


Json = Annotated[T, _Literal()]
_EXACT = 2**53  # up to which every whole number is a float, too


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 54.0 is the integer 54."""
    members: dict[str, Any] = value
    items: list[Any] = value
    match value:
        case float() if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
        case dict():
            return {name: _whole(item) for name, item in members.items()}
        case list():
            return [_whole(item) for item in items]
        case _:
            return value
