"""POST /webhooks/mlflow: something changed in the registry. What it says is not believed: the reconciler looks."""

import base64
import hmac
import time
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Header, Request
from pydantic import SecretStr

from control_plane.adapters.store import wake
from control_plane.api.auth import Credentials, Requires
from control_plane.api.deps import Now, Session, Settings
from control_plane.api.problems import responses
from control_plane.domain.governance import Action
from control_plane.errors import Forbidden, Unauthenticated

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
_FRESH_S = 300  # an older delivery may be a replay


@router.post("/mlflow", status_code=202, responses=responses(Unauthenticated, Forbidden))
async def mlflow(
    request: Request,
    session: Session,
    settings: Settings,
    credentials: Credentials,
    now: Now,
    signature: Annotated[str | None, Header(alias="X-MLflow-Signature")] = None,
    delivery: Annotated[str, Header(alias="X-MLflow-Delivery-Id")] = "",
    timestamp: Annotated[str, Header(alias="X-MLflow-Timestamp")] = "",
) -> None:
    """Wakes the reconciler. Signed with the shared webhook secret, or sent with a key that may `wake`."""
    secret = settings.mlflow_webhook_secret
    if signature is None or secret is None:
        await Requires(Action.WAKE)(request, credentials, now)
    elif not _signed(secret, signature, delivery, timestamp, await request.body()):
        raise Unauthenticated("The webhook's signature is wrong or too old.")
    await wake.notify(session, "mlflow")


def _signed(secret: SecretStr, signature: str, delivery: str, timestamp: str, body: bytes) -> bool:
    """MLflow's scheme: "v1," + base64 of HMAC-SHA256 over delivery id, timestamp and body, joined by dots."""
    content = f"{delivery}.{timestamp}.".encode() + body
    mac = hmac.new(secret.get_secret_value().encode(), content, sha256).digest()
    expected = "v1," + base64.b64encode(mac).decode()
    fresh = timestamp.isascii() and timestamp.isdigit() and abs(time.time() - int(timestamp)) <= _FRESH_S
    return fresh and hmac.compare_digest(signature.encode(), expected.encode())
