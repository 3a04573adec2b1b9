"""How to reach a cluster: from the file KUBECONFIG names, else as the service account of the pod we run in."""

import atexit
import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml

from control_plane.errors import InvalidConfig

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REREAD_S: Final = 60.0  # a pod's token is renewed every hour or so
_Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    server: str
    namespace: str
    verify: ssl.SSLContext | bool
    token: Callable[[], str | None]


def access(environ: Mapping[str, str], account: Path = _ACCOUNT) -> Access:
    """Raises InvalidConfig, naming what is missing."""
    if given := environ.get("KUBECONFIG"):
        return _from_file(Path(given))
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        raise InvalidConfig("No cluster: set KUBECONFIG, or run in a pod with a service account's token.")
    shown = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{shown}:{port}",
        namespace=(account / "namespace").read_text().strip(),
        verify=ssl.create_default_context(cafile=str(account / "ca.crt")),
        token=_reread(account / "token"),
    )


def _from_file(path: Path) -> Access:
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", "context", str(document["current-context"]))
        cluster = _named(document, "clusters", "cluster", str(context["cluster"]))
        user = _named(document, "users", "user", str(context["user"]))
        server = str(cluster["server"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise InvalidConfig(f"KUBECONFIG {path} cannot be used: {exc!r}") from exc
    if unknown := user.keys() & {"exec", "auth-provider", "username"}:
        raise InvalidConfig(
            f"KUBECONFIG {path}: the user's {', '.join(sorted(unknown))} is not supported; use a token or a client "
            "certificate, such as those of a service account."
        )
    return Access(server, str(context.get("namespace") or "default"), _verify(cluster, user), _token(user))


def _named(document: Any, group: str, member: str, name: str) -> _Part:
    for entry in document[group]:
        if entry["name"] == name:
            return cast(_Part, entry[member] or {})
    raise KeyError(f"{group}: {name}")


def _verify(cluster: _Part, user: _Part) -> ssl.SSLContext | bool:
    if not str(cluster["server"]).startswith("https"):
        return False
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"), cadata=_decoded(cluster, "certificate-authority-data")
    )
    if cluster.get("insecure-skip-tls-verify"):
        raise InvalidConfig("KUBECONFIG: insecure-skip-tls-verify is not supported; name the certificate-authority.")
    certificate, key = (_file(user, name) for name in ("client-certificate", "client-key"))
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def _file(user: _Part, name: str) -> str | None:
    """The path of a PEM, written to a private file where the document holds its content."""
    content = _decoded(user, f"{name}-data")
    if content is None:
        return user.get(name)
    handle, path = tempfile.mkstemp(prefix="mlcp-")  # mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(content)
    atexit.register(Path(path).unlink, missing_ok=True)
    return path


def _decoded(part: _Part, name: str) -> str | None:
    return base64.b64decode(part[name]).decode() if part.get(name) else None


def _token(user: _Part) -> Callable[[], str | None]:
    if user.get("tokenFile"):
        return _reread(Path(str(user["tokenFile"])))
    token = user.get("token")
    return lambda: token


def _reread(path: Path) -> Callable[[], str | None]:
    known: list[tuple[float, str]] = []

    def token() -> str:
        if not known or time.monotonic() - known[0][0] > _REREAD_S:
            known[:] = [(time.monotonic(), path.read_text().strip())]
        return known[0][1]

    return token
