"""POST /webhooks/...: what other systems have to tell.

Of MLflow nothing is believed but that something changed: the reconciler looks. Alerts are kept, once each, as signals
for the policy in force to decide about.
"""

import base64
import hmac
import time
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from pydantic import SecretStr

from control_plane.adapters.store import audit, wake
from control_plane.adapters.store import signals as signal_store
from control_plane.api.auth import Credentials, Requires
from control_plane.api.body import Json
from control_plane.api.deps import Now, Session, Settings
from control_plane.api.policies import signal_of
from control_plane.api.problems import responses
from control_plane.contracts.alerts import Accepted, Alertmanager, key, signal
from control_plane.contracts.policies import SignalSpec
from control_plane.domain.governance import Action
from control_plane.errors import Conflict, Forbidden, InvalidInput, Unauthenticated
from control_plane.services import signals

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
_ALERTS = responses(Unauthenticated, Forbidden, Conflict, InvalidInput)
_FRESH_S = 300  # an older delivery may be a replay


async def _sender(
    request: Request,
    session: Session,
    settings: Settings,
    credentials: Credentials,
    now: Now,
    signature: Annotated[str | None, Header(alias="X-Mlcp-Signature")] = None,
    timestamp: Annotated[str, Header(alias="X-Mlcp-Timestamp")] = "",
) -> None:
    """Lets through what is signed with the shared secret, now and for the first time, or sent with a key that may.

    Alertmanager cannot sign: the secret itself is as good as a key, for alerts alone.

    The signature is "v1," + base64 of HMAC-SHA256 over timestamp (Unix seconds), a dot and the body.
    """
    secret = settings.alert_webhook_secret
    if signature is None or secret is None:
        if not _shown(secret, credentials):
            await Requires(Action.REPORT_ALERT)(request, credentials, now)
        return
    if not _fresh(timestamp) or not _right(secret, signature, f"{timestamp}.".encode() + await request.body()):
        raise Unauthenticated("The webhook's signature is wrong or too old.")
    forget = now - 2 * timedelta(seconds=_FRESH_S)
    if not await signal_store.first_delivery(session, signature, forget=forget, now=now):
        raise Conflict("This very delivery came before; sign it anew to send it again.")


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


@router.post("/alertmanager", status_code=202, responses=_ALERTS)
async def alertmanager(
    session: Session, now: Now, body: Json[Alertmanager], _: Annotated[None, Depends(_sender)]
) -> Accepted:
    """Alertmanager's webhook, version 4. Each alert of the group is a signal, once, whatever is sent again."""
    found = {key(alert): signal(alert) for alert in body.alerts}
    return Accepted(received=len(body.alerts), new=await signals.notice_all(session, found, now=now))


@router.post("/alerts", status_code=202, responses=_ALERTS)
async def alerts(session: Session, now: Now, body: Json[SignalSpec], _: Annotated[None, Depends(_sender)]) -> Accepted:
    """An alert of any other sender, or what a person noticed. Its `id` says whether it is the same as one before."""
    what = body.id or sha256(audit.canonical(body.model_dump(mode="json"))).hexdigest()
    new = await signals.notice(session, f"{what}:{body.status}", signal_of(body, now), now=now)
    return Accepted(received=1, new=int(new))


def _signed(secret: SecretStr, signature: str, delivery: str, timestamp: str, body: bytes) -> bool:
    """MLflow's scheme: "v1," + base64 of HMAC-SHA256 over delivery id, timestamp and body, joined by dots."""
    return _fresh(timestamp) and _right(secret, signature, f"{delivery}.{timestamp}.".encode() + body)


def _shown(secret: SecretStr | None, credentials: Credentials) -> bool:
    given, wanted = credentials.credentials if credentials else "", secret.get_secret_value() if secret else ""
    return bool(wanted) and hmac.compare_digest(given.encode(), wanted.encode())


def _fresh(timestamp: str) -> bool:
    known = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12
    return known and abs(time.time() - int(timestamp)) <= _FRESH_S


def _right(secret: SecretStr, signature: str, content: bytes) -> bool:
    mac = hmac.new(secret.get_secret_value().encode(), content, sha256).digest()
    return hmac.compare_digest(signature.encode(), b"v1," + base64.b64encode(mac))
