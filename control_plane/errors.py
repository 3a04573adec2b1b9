"""Every error this system raises on purpose.

ControlPlaneError
├── Unauthenticated (401)      no key, or one we do not know
├── Forbidden (403)            a known principal without the role or scope
├── NotFound (404)
├── MethodNotAllowed (405)
├── Conflict (409)
│   ├── StaleRevision          someone else moved the row first
│   ├── GatesNotMet            a promotion the evidence does not carry; `reasons` names every gate
│   ├── RolloutOpen            one open rollout per model
│   ├── NotReady               what should answer has no ready process
│   ├── StaleProposal          what was to be approved is no longer what was shown
│   └── IdempotencyMismatch    the key was used before, for another request
├── PreconditionRequired (428) a change that needs If-Match came without it
├── InvalidInput (422)
│   ├── InvalidSplit           weights that do not cover the traffic
│   ├── InvalidConfig          a model.yaml that cannot be used
│   └── InvalidData            training data the pipeline refuses; `findings` names column, rows and examples
├── TooLarge (413)
├── RateLimited (429)          a key or a model has had its requests for now; Retry-After is set
├── Overloaded (503)           shed before latency collapses; Retry-After is set
├── DeadlineExceeded (504)
└── Unavailable (503)          something we depend on does not answer
    ├── RegistryUnavailable
    ├── BusUnavailable
    ├── StoreUnavailable
    ├── ClusterUnavailable     the Kubernetes API does not answer, or not us
    └── TargetUnavailable      no model server could answer this prediction

What a user can cause raises the most specific of these; what only a programmer can cause raises ValueError.
"""

from typing import Any, ClassVar


class ControlPlaneError(Exception):
    """Root of the tree. `type` is the stable RFC 9457 slug clients switch on."""

    type: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500  # a plain int: this module knows no framework

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra  # RFC 9457 extension members; must be JSON-serialisable


class Unauthenticated(ControlPlaneError):
    type, title, status = "unauthenticated", "A valid key is required", 401


class Forbidden(ControlPlaneError):
    type, title, status = "forbidden", "The key does not allow this", 403


class NotFound(ControlPlaneError):
    type, title, status = "not-found", "Resource not found", 404


class MethodNotAllowed(ControlPlaneError):
    type, title, status = "method-not-allowed", "The resource does not have this method", 405


class Conflict(ControlPlaneError):
    type, title, status = "conflict", "Request conflicts with current state", 409


class StaleRevision(Conflict):
    type, title = "stale-revision", "The resource changed since it was read"


class GatesNotMet(Conflict):
    type, title = "gates-not-met", "The version does not pass its gates"


class RolloutOpen(Conflict):
    type, title = "rollout-open", "The model already has an open rollout"


class NotReady(Conflict):
    type, title = "not-ready", "The version has no ready model server"


class StaleProposal(Conflict):
    type, title = "stale-proposal", "What was to be approved has changed"


class IdempotencyMismatch(Conflict):
    type, title = "idempotency-mismatch", "The idempotency key belongs to another request"


class PreconditionRequired(ControlPlaneError):
    type, title, status = "precondition-required", "If-Match is required", 428


class InvalidInput(ControlPlaneError):
    type, title, status = "invalid-input", "Input cannot be used", 422


class InvalidSplit(InvalidInput):
    type, title = "invalid-split", "Traffic split is not valid"


class InvalidConfig(InvalidInput):
    type, title = "invalid-config", "model.yaml cannot be used"


class InvalidData(InvalidInput):
    type, title = "invalid-data", "Training data was refused"


class TooLarge(ControlPlaneError):
    type, title, status = "too-large", "The body is larger than allowed", 413


class RateLimited(ControlPlaneError):
    type, title, status = "rate-limited", "Too many requests", 429


class Overloaded(ControlPlaneError):
    type, title, status = "overloaded", "Too many requests at once", 503


class DeadlineExceeded(ControlPlaneError):
    type, title, status = "deadline-exceeded", "No answer within the deadline", 504


class Unavailable(ControlPlaneError):
    type, title, status = "unavailable", "A dependency does not answer", 503


class RegistryUnavailable(Unavailable):
    type, title = "registry-unavailable", "MLflow does not answer"


class BusUnavailable(Unavailable):
    type, title = "bus-unavailable", "Redis does not answer"


class StoreUnavailable(Unavailable):
    type, title = "store-unavailable", "Postgres does not answer"


class ClusterUnavailable(Unavailable):
    type, title = "cluster-unavailable", "Kubernetes does not answer"


class TargetUnavailable(Unavailable):
    type, title = "target-unavailable", "No model server could answer"
