"""The fenced blocks of a Markdown page, to be run as a reader would run them.

```bash            run by everybody
```bash setup      has the tag `setup`: left to tests that begin with a fresh clone
```console         lines after `$ ` are commands, the others what they print
```python          a program
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RUNNABLE = frozenset({"bash", "console", "python"})
_FENCE = re.compile(r"^```(?P<language>\w+)(?P<tags>[^\n`]*)\n(?P<text>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of its first line, from 1
    language: str
    tags: frozenset[str]
    text: str  # what is to be run

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *, without: frozenset[str] = frozenset({"setup"})) -> list[Block]:
    """The runnable blocks of `page` in order, but those that have one of the tags `without`."""
    source, found = page.read_text(), []
    for match in _FENCE.finditer(source):
        language, tags = match["language"], frozenset(match["tags"].split())
        if language in RUNNABLE and not tags & without:
            line = source.count("\n", 0, match.start("text")) + 1
            found.append(Block(page, line, language, tags, _commands(language, match["text"])))
    return found


def run(
    page_blocks: list[Block],
    *,
    cwd: Path,
    env: Mapping[str, str],
    replaced: Mapping[str, str],
    timeout_s: float = 600.0,
) -> str:
    """Run the blocks one after the other in one shell, as typed into one terminal, and return what they printed.

    `replaced`: text of the page that is another here, such as an address. AssertionError naming the block that failed.
    """
    script = ["set -euo pipefail"]
    for block in page_blocks:
        script.append(f"echo '--- {block.name}'; echo '--- {block.name}' >&2")
        if block.language == "python":
            script.append(f"{sys.executable} - <<'END_OF_BLOCK'\n{block.text}\nEND_OF_BLOCK")
        else:
            script.append(block.text)
    text = "\n".join(script)
    for old, new in replaced.items():
        text = text.replace(old, new)
    done = subprocess.run(
        ["bash", "-c", text], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
    return done.stdout


def _commands(language: str, text: str) -> str:
    if language != "console":
        return text.rstrip("\n")
    return "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
