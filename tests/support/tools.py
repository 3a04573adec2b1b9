"""Programs no package index has: Prometheus, Alertmanager and their command-line tools, as Debian packages them.

Taken from PATH where they are; else unpacked once into var/tools from Debian's packages, which needs apt and no root.
What cannot be had fails the test that asks for it.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[2] / "var" / "tools"
_PACKAGES: Final = {
    "prometheus": ("prometheus", ("prometheus",)),
    "promtool": ("prometheus", ("promtool",)),
    "alertmanager": ("prometheus-alertmanager", ("prometheus-alertmanager", "alertmanager")),
    "amtool": ("prometheus-alertmanager", ("amtool",)),
}

_TEMPLATES: Final = Path("/usr/share/prometheus/alertmanager")


def program(name: str) -> str:
    """Path of `name`, one of prometheus, promtool, alertmanager, amtool. AssertionError saying what to do, if none."""
    package, names = _PACKAGES[name]
    unpacked = FOLDER / "debian" / "usr" / "bin"
    for folder in (None, str(unpacked)):
        for candidate in names:
            if found := shutil.which(candidate, path=folder):
                return found
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not any((unpacked / candidate).exists() for candidate in names):
            _unpack(package)
    return program(name)


def alertmanager() -> list[str]:
    """The command of Alertmanager, to which its options are added; paths among them have to be absolute.

    Debian's build reads its templates from a folder only root can fill. Where the package is not installed, the path
    in our copy of the program is replaced by one of the same length, relative to the folder it is started in.
    """
    found = Path(program("alertmanager"))
    templates = FOLDER / "debian" / _TEMPLATES.relative_to("/")
    if _TEMPLATES.exists() or FOLDER not in found.parents:
        return [str(found)]
    mine = found.with_name("alertmanager-relocated")
    if not mine.exists():
        path, content = str(_TEMPLATES).encode(), found.read_bytes()
        assert path in content, "this build of Alertmanager is not known: install its package"
        draft = mine.with_name(f"{mine.name}.{os.getpid()}")
        draft.write_bytes(content.replace(path, (b"./" * len(path))[: len(path)]))
        draft.chmod(0o755)
        draft.replace(mine)
    return ["env", "-C", str(templates), str(mine)]


def _unpack(package: str) -> None:
    """Download with apt, in folders of our own, so that it works without root and leaves the system as it is."""
    lists = FOLDER / "apt" / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    tried: list[str] = []
    for options in ((), ("-o", f"Dir::State::lists={lists}")):
        apt = ["apt-get", "-q", *options, "-o", f"Dir::Cache={FOLDER / 'apt'}", "-o", "APT::Sandbox::User=root"]
        steps = [[*apt, "download", package]] if not options else [[*apt, "update"], [*apt, "download", package]]
        tried += [f"{' '.join(step)}: {said}" for step in steps if (said := _run(step))]
        if found := sorted(FOLDER.glob(f"{package}_*.deb")):
            if said := _run(["dpkg-deb", "-x", str(found[-1]), str(FOLDER / "debian")]):
                tried.append(f"dpkg-deb: {said}")
                break
            found[-1].unlink()
            return
    raise AssertionError(
        f"{package} is needed: install it (Debian, Ubuntu: apt-get install {package}) or put its programs on PATH. "
        f"Unpacking Debian's package into {FOLDER} failed: {'; '.join(tried)}"
    )


def _run(argv: list[str]) -> str:
    """What went wrong; "" if nothing did."""
    try:
        done = subprocess.run(
            argv, cwd=FOLDER, capture_output=True, text=True, timeout=240, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-300:]
