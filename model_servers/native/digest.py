"""The digest of an artifact tree: what registration records and every server verifies before it loads."""

import hashlib
from pathlib import Path


def of_folder(folder: Path) -> str:
    """SHA-256 over the text `sha256sum` prints for the tree, as "sha256:<hex>".

    The same by hand: `find . -type f | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    Symbolic links to files count as their content. Raises ValueError for a tree without files: an empty download
    must not look like an artifact.
    """
    files = sorted((path.relative_to(folder).as_posix().encode(), path) for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ValueError(f"no files under {folder}")
    tree = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        tree.update(content.encode() + b"  " + name + b"\n")
    return f"sha256:{tree.hexdigest()}"
