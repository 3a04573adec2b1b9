"""Docker, where it answers: the images of the platform, built once, and what is in their layers."""

import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "control-plane", "worker", "router", "model-server", "model-server-foreign", "model-host", "trainer", "mlflow",
)  # fmt: skip
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# In the pip.conf that is the build secret. Always the same, so that a cached layer was made with it too.
CANARY = "canary-0d1b2f7c9a3e4856"
# (what it looks like, what may not be before it). Each begins with plain text, a hundred times as fast to find.
_KEY_MATERIAL = (
    # A key, not the word for one.
    (rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\\?\r?\n?(?:[\w+/=: ,-]{40,}\r?\n){2}", rb""),
    # The keys of Amazon's documentation, which botocore ships, end so.
    (rb"AKIA(?![A-Z0-9]{9}EXAMPLE)[A-Z0-9]{16}(?![A-Z0-9])", rb"[A-Z0-9]"),
    (rb"mlcp_[A-Za-z0-9_-]{40,}", rb"[\w.]"),
)


@cache
def clients() -> tuple[str, list[str]]:
    """The programs for docker and compose, as `make` finds them."""
    told = subprocess.run(
        ["sh", "-ec", '. infra/compose/clients.sh; printf "%s\\n" "$DOCKER" "$COMPOSE"'],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    docker, compose = told.stdout.splitlines()
    return docker, shlex.split(compose)


def docker(*arguments: str, **env: str) -> str:
    done = subprocess.run(
        [clients()[0], *arguments], capture_output=True, text=True, env={**os.environ, "DOCKER_BUILDKIT": "1", **env}
    )
    assert done.returncode == 0, (arguments[:4], done.stderr[-3_000:])
    return done.stdout.strip()


@cache
def image(target: str) -> str:
    """The tag of the image, built from this checkout on MLCP_TEST_BASE_IMAGE."""
    tag = f"mlcp-{target}:test"
    arguments = ["build", "--network=host", "--quiet", "--file", str(ROOT / "infra" / "images" / "Dockerfile")]
    docker(*arguments, *_base(), "--target", target, "--tag", tag, str(ROOT))
    return tag


def stores(folder: Path) -> str:
    """An image with Postgres, Redis and an S3 server. `folder`: an empty one."""
    here = ROOT / "tests" / "support"
    for file in (*(here / "compose_stores").iterdir(), here / "swift_server.py"):
        shutil.copy(file, folder)
    pins = re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(pins))
    docker("build", "--network=host", "--quiet", *_base(), "--tag", "mlcp-stores:test", str(folder))
    return "mlcp-stores:test"


def _base() -> Sequence[str]:
    secret = Path(os.environ.get("TMPDIR", "/tmp")) / f"mlcp-pip-{os.getuid()}.conf"
    secret.write_text(f"# {CANARY}\n[global]\ntimeout = 60\n")
    given = ["--build-arg", f"BASE_IMAGE={os.environ['MLCP_TEST_BASE_IMAGE']}", "--secret", f"id=pip,src={secret}"]
    if ca := os.environ.get("SSL_CERT_FILE"):
        given += ["--secret", f"id=ca,src={ca}"]
    return given


def leaks(tag: str, secrets: Sequence[str]) -> list[str]:
    """Where in the image one of `secrets`, or key material of anybody, is: settings, history, every file of a layer.

    Layers of the base image are left out but for `secrets`: what others ship is theirs.
    """
    words = [word.encode() for word in secrets]
    told = docker("image", "inspect", tag) + docker("history", "--no-trunc", tag)
    found = [f"{tag}: settings" for word in secrets if word in told]
    own = int(docker("image", "inspect", os.environ["MLCP_TEST_BASE_IMAGE"], "--format", "{{len .RootFS.Layers}}"))
    for number, (name, content) in _files(tag):
        if any(word in content for word in words) or (number >= own and has_key_material(content)):
            found.append(f"{tag}: {name}")
    return found


def has_key_material(content: bytes) -> bool:
    for looks, before in _KEY_MATERIAL:
        at = 0
        while found := re.compile(looks).search(content, at):
            if not (before and re.fullmatch(before, content[max(0, found.start() - 1) : found.start()])):
                return True
            at = found.start() + 1
    return False


def _files(tag: str) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """(number of the layer, (path, content)) of every file."""
    with subprocess.Popen([clients()[0], "save", tag], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        with tarfile.open(fileobj=io.BytesIO(saving.stdout.read())) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            for number, layer in enumerate(json.load(manifest)[0]["Layers"]):
                packed = archive.extractfile(layer)
                assert packed is not None
                data = packed.read()
                data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
                with tarfile.open(fileobj=io.BytesIO(data)) as files:
                    for member in files:
                        file = files.extractfile(member) if member.isfile() else None
                        if file is not None:
                            yield number, (member.name, file.read())
