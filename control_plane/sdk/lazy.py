"""Names of a module that are imported when they are first used: nobody waits for those that are not."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names(module: str, package: str, places: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of `module`. `places`: a module of `package` -> the names that come from it."""
    found = {name: f"{package}.{place}" for place, theirs in places.items() for name in theirs}

    def get(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(found[name]), name)

    return get
