"""Files other processes read while we write them."""

import json
import os
from pathlib import Path


def write_json(path: Path, document: object) -> None:
    """Whole or not at all: to a temporary file beside it, then renamed. Readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(document, file)
    temporary.replace(path)
