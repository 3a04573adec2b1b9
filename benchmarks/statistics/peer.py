"""gbstats' sequential test (GrowthBook), in arrays by its published formula and held against the package itself.

Source: gbstats 0.8.0, `frequentist/tests.py`: Waudby-Smith et al., arXiv:2103.06476v7, eq. 9, tuned to 5,000 customers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.statistics.vector import Flags, Floats

WANTED = "gbstats==0.8.0"  # asks for numpy below 2
TUNED_TO = 5_000
DEFAULT = "relative"  # `difference_type` of `models/settings.py` (line 22) and `models/tests.py` (line 17)


def differs(treatment: Floats, control: Floats, units: Floats, *, alpha: float, relative: bool) -> Flags:
    """Events of both arms at each look; whether 0 is outside of the interval."""
    n = np.broadcast_to(units, treatment.shape)
    a, b = control / n, treatment / n
    with np.errstate(divide="ignore", invalid="ignore"):
        if relative:
            effect = (b - a) / a
            variance = b * (1 - b) / (a**2 * n) + a * (1 - a) * b**2 / (a**4 * n)
        else:
            effect, variance = b - a, (a * (1 - a) + b * (1 - b)) / n
        both = 2 * n
        rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / TUNED_TO
        grown = both * rho2 + 1
        width = np.sqrt(variance * both * 2 * grown * np.log(np.sqrt(grown) / alpha) / (both**2 * rho2))
        usable = (a * (1 - a) > 0) & (b * (1 - b) > 0)
        return np.asarray(usable & (np.abs(effect) > width))


def held_against(python: Path, looks: list[tuple[int, int, int]], alpha: float = 0.05) -> tuple[str, int]:
    """The difference the package compares unless told, and how many of the looks it decides otherwise, by either."""
    script = Path(__file__).with_name("gbstats_oracle.py")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(script)], input=json.dumps(looks), capture_output=True, text=True, check=True, env=environ
    )
    said = json.loads(done.stdout)
    units, treatment, control = (np.array(part, dtype=float) for part in zip(*looks, strict=True))
    wrong = 0
    for at, relative in enumerate((True, False)):
        ours = differs(treatment, control, units, alpha=alpha, relative=relative)
        wrong += sum(bool(found) != answer[at][0] for found, answer in zip(ours, said["answers"], strict=True))
    return str(said["default"]), wrong


def environment(home: Path) -> Path:
    """The interpreter of an environment that has gbstats, made the first time and kept."""
    python = home / "venv-gbstats" / "bin" / "python"
    if not python.exists():
        uv = [str(Path(sys.executable).with_name("uv"))]
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", "3.11", str(python.parents[1])], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), WANTED], check=True)
    return python
