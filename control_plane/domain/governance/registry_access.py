"""What a request to MLflow is about, read off its method and path: who may send it is then a matter of roles. Pure.

What is not named here passes for nobody. Names and stages of what the control plane owns (who is Production, what a
version's digest is, that it exists) change through the control plane alone, for only there is it decided and audited.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

OWN_ALIASES = frozenset({"staging", "production"})
OWN_TAGS = "mlcp."
_API = re.compile(r"/(?:ajax-)?api/\d\.\d/(?:preview/)?(mlflow|mlflow-artifacts)/(.+)")
_SEARCHES = re.compile(
    r"(experiments|runs|logged-models|traces|datasets|issues)/(search|search-datasets|batchGetInfos|metrics)"
)
_LOGS = re.compile(
    r"experiments/(create|update|delete|restore|set-experiment-tag|delete-experiment-tag)"
    r"|runs/(create|update|delete|restore|log-metric|log-parameter|log-batch|log-model|log-inputs|outputs|set-tag|delete-tag)"
    r"|logged-models(/[^/]+(/(tags|params)(/[^/]+)?)?)?"
    r"|traces(/.+)?|artifacts/presigned-(upload|download)-url|upload-artifact"
)
_NAMED = {  # what names a registered model in its body
    "POST registered-models/create",
    "PATCH registered-models/update",
    "POST registered-models/set-tag",
    "DELETE registered-models/delete-tag",
    "POST registered-models/alias",
    "DELETE registered-models/alias",
    "POST model-versions/create",
    "PATCH model-versions/update",
    "POST model-versions/set-tag",
    "DELETE model-versions/delete-tag",
}
_OURS = {
    "POST registered-models/rename",
    "DELETE registered-models/delete",
    "DELETE model-versions/delete",
    "POST model-versions/transition-stage",
}


class Kind(StrEnum):
    OPEN = "open"  # nobody has to say who he is: a probe
    READ = "read"
    LOG = "log"  # experiments, runs, artifacts
    REGISTER = "register"  # registered models and versions: the body names the model
    OURS = "ours"  # the control plane alone
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Wanted:
    kind: Kind
    why: str = ""  # nobody may


def wanted(method: str, path: str) -> Wanted:
    """`path`: decoded once, as MLflow decodes it."""
    if "//" in path or "\\" in path or re.search(r"/\.{1,2}(/|$)", path) or any(ord(char) < 32 for char in path):
        return Wanted(Kind.CLOSED, "The path is not in its plain form.")
    found = _API.fullmatch(path)
    if found is None:
        return _outside(method, path)
    area, rest = found.groups()
    if area == "mlflow-artifacts":
        return _artifacts(method, rest)
    return _tracking(method, rest)


def owned(rest: str, body: Mapping[str, object]) -> str:
    """Why the control plane alone may do what this body of a REGISTER request says; "": anybody with the role may."""
    if rest.endswith("registered-models/alias") and str(body.get("alias", "")).lower() in OWN_ALIASES:
        return "The aliases staging and production follow the stages of the control plane: mlcp promote."
    if rest.endswith("-tag") and str(body.get("key", "")).startswith(OWN_TAGS):
        return f"Tags that begin with {OWN_TAGS} are the control plane's."
    return ""


def _outside(method: str, path: str) -> Wanted:
    if method in {"GET", "HEAD"}:
        probe = path in {"/health", "/version"}
        known = (
            probe or path in {"/", "/get-artifact", "/model-versions/get-artifact"} or path.startswith("/static-files/")
        )
        return Wanted(Kind.OPEN if probe else Kind.READ) if known else _CLOSED
    return Wanted(Kind.READ) if (method, path) == ("POST", "/graphql") else _CLOSED


def _artifacts(method: str, rest: str) -> Wanted:
    if rest == "artifacts" or rest.startswith(("artifacts/", "presigned/")):
        match method:
            case "GET" | "HEAD":
                return Wanted(Kind.READ)
            case "PUT" if rest.startswith("artifacts/"):
                return Wanted(Kind.LOG)
            case _:
                return Wanted(Kind.OURS, "Artifacts are what versions are made of; they are not taken back.")
    return Wanted(Kind.LOG) if method == "POST" and rest.startswith("mpu/") else _CLOSED


def _tracking(method: str, rest: str) -> Wanted:
    if f"{method} {rest}" in _OURS:
        return Wanted(
            Kind.OURS, "Registered models and their stages are the control plane's: mlcp promote, mlcp rollback."
        )
    if f"{method} {rest}" in _NAMED:
        return Wanted(Kind.REGISTER)
    if method in {"GET", "HEAD"}:
        return _CLOSED if rest.startswith("gateway/") else Wanted(Kind.READ)
    if method == "POST" and (_SEARCHES.fullmatch(rest) or rest == "registered-models/get-latest-versions"):
        return Wanted(Kind.READ)
    return Wanted(Kind.LOG) if _LOGS.fullmatch(rest) else _CLOSED


_CLOSED = Wanted(Kind.CLOSED, "This part of MLflow is not open here.")
