"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): what it must leave alone, and a check of our own."""

import os
import re
from typing import Any

import schemathesis

_INSIDE = re.compile(r"Traceback|File \"|sqlalchemy|asyncpg|psycopg|/control_plane/|pydantic_core")


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """The key everything is asked with is neither revoked nor replaced: nothing would be reached after that."""
    return os.environ["MLCP_TEST_OWN_KEY"] not in str((case.path_parameters or {}).get("key_id", ""))


@schemathesis.check
def nothing_of_the_inside_is_shown(_context: Any, response: Any, _case: Any) -> None:
    found = _INSIDE.search(response.text)
    if found is not None:
        raise AssertionError(f"the answer shows {found.group()!r}")
