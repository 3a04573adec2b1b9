"""What can answer: a native artifact or any MLflow pyfunc. Rows in, JSON bodies out."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from model_servers.runtime.features import Row
from model_servers.runtime.spec import Feature


class ModelFailed(Exception):
    """The model raised, or answered something that is no number. The text never holds a feature's value."""


class Engine(Protocol):
    """Made once per process; `answers` and `explanations` return one JSON document per row, in order."""

    def load(self) -> None:
        """Load now what would be loaded at first use. Raises whatever makes the model unusable."""
        ...

    @property
    def features(self) -> Mapping[str, Feature]:
        """In the order of a row's values."""
        ...

    @property
    def rows_at_once(self) -> bool:
        """Several requests may share one call without changing anyone's answer."""
        ...

    def recorded_example(self) -> Mapping[str, object] | None:
        """Features of the example logged with the artifact, if it has one."""
        ...

    def answers(self, rows: Sequence[Row], hurried: bool = False) -> list[bytes]:
        """`hurried`: leave out reasons; they cost many times the answer. Raises ModelFailed, or whatever a foreign
        model raises."""
        ...

    def explanations(self, rows: Sequence[Row]) -> list[bytes]:
        """Raises Refused where the model has no exact attributions."""
        ...
