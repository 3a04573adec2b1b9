"""The pages under /pages: sign in with a key, see what waits for a person, approve or reject it.

No script, nothing from elsewhere. A browser sends cookies along with requests other sites make it send; so the
session's cookie is SameSite=Strict, every form carries a token only pages of this session can hold (HMAC over session
and address), and a request that names another origin is refused.
"""

import hmac
import secrets
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from fastapi import Cookie, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from control_plane.adapters.store import approvals as store
from control_plane.adapters.store import page_sessions
from control_plane.api import plots
from control_plane.api.auth import identify, permit
from control_plane.api.deps import Now, PolicyDep, Session
from control_plane.contracts.approvals import ApprovalView
from control_plane.contracts.rollouts import PromoteSpec, ReasonSpec
from control_plane.domain.audit import Actor
from control_plane.domain.governance import Action, Role, covers
from control_plane.domain.governance.approvals import State, same_person
from control_plane.domain.governance.policy import Operation
from control_plane.errors import ControlPlaneError, Forbidden, InvalidInput, NotFound, Unauthenticated
from control_plane.services import approvals, keys, promotion
from control_plane.services.cutover import Cause
from control_plane.services.keys import Principal

_COOKIE = "mlcp_session"
_LASTS = timedelta(hours=8)
_LIST = 100
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Token = Annotated[str | None, Cookie(alias=_COOKIE)]


async def _signed_in(session: Session, now: Now, token: Token = None) -> Principal:
    """Whose session it is. Raises Unauthenticated without one, or when its key is worth nothing any more."""
    holder = None if token is None else await page_sessions.holder(session, token, now=now)
    if holder is None or not keys.alive(holder, now):
        raise Unauthenticated("Sign in first.")
    return keys.principal_of(holder)


SignedIn = Annotated[Principal, Depends(_signed_in, scope="function")]


def create_pages() -> FastAPI:
    """An application of its own: what is refused here is told on a page."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.get("/sign-in")(sign_in_form)
    app.post("/sign-in")(sign_in)
    app.post("/sign-out")(sign_out)
    app.get("/approvals")(list_page)
    app.get("/approvals/{approval_id}")(approval_page)
    app.post("/approvals/{approval_id}/{verb}")(decide)
    app.get("/style.css")(style)
    for kind in (ControlPlaneError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refused)
    return app


async def sign_in_form() -> Response:
    return _page("sign_in.html")


async def sign_in(request: Request, session: Session, now: Now) -> Response:
    """A session of a working day for the key given, if it may read."""
    form = await _form(request)
    principal = await identify(request, form.get("key", "").strip(), now)
    permit(principal, Action.READ, None)
    if principal.proof.startswith("oidc:"):
        raise Forbidden("Pages are signed in to with a key: a session must not outlive the token it began with.")
    token = secrets.token_urlsafe(32)
    await page_sessions.begin(session, token, UUID(principal.proof), expires_at=now + _LASTS, now=now)
    answer = RedirectResponse("/pages/approvals", 303, _HEADERS)
    safe = request.url.scheme == "https"
    answer.set_cookie(
        _COOKIE, token, int(_LASTS.total_seconds()), path="/pages", secure=safe, httponly=True, samesite="strict"
    )
    return answer


async def sign_out(request: Request, session: Session, _: SignedIn, token: Token = None) -> Response:
    await _checked(request, token)
    await page_sessions.end(session, token or "")
    answer = RedirectResponse("/pages/sign-in", 303, _HEADERS)
    answer.delete_cookie(_COOKIE, path="/pages")
    return answer


async def list_page(session: Session, principal: SignedIn, token: Token = None) -> Response:
    """What waits, and what was decided lately."""
    entries = await store.page(session, before=None, limit=_LIST)
    seen = [approvals.view(e) for e in entries if e.row.model is None or covers(principal.grant.models, e.row.model)]
    waiting = [view for view in seen if view.state is State.PENDING]
    over = [view for view in seen if view.state is not State.PENDING]
    return _page("list.html", who=principal, waiting=waiting, over=over, out=_proof(token, "/pages/sign-out"))


async def approval_page(
    approval_id: UUID, session: Session, principal: SignedIn, policy: PolicyDep, now: Now, token: Token = None
) -> Response:
    """What would happen, on what grounds, and the two buttons for whoever may press them."""
    view = approvals.view(await store.load(session, approval_id))
    permit(principal, Action.READ, view.model)
    impact = "", list[str]()
    if view.state is State.PENDING and view.operation is Operation.PROMOTE and view.model is not None:
        spec = PromoteSpec.model_validate({"version": view.content["version"], **_asked(view)})
        plan = await promotion.preview(session, view.model, spec, policy=policy, now=now)
        impact = ("" if plan.forecast is None else plan.forecast.why), plan.reasons
    return _page(
        "approval.html",
        who=principal,
        view=view,
        impact=impact,
        bars=plots.judged(view.content.get("judged")),
        facts=_facts(view),
        why_not=_why_not(principal, view),
        proof={verb: _proof(token, f"/pages/approvals/{view.id}/{verb}") for verb in ("approve", "reject")},
        out=_proof(token, "/pages/sign-out"),
    )


async def decide(
    approval_id: UUID,
    verb: Literal["approve", "reject"],
    request: Request,
    session: Session,
    principal: SignedIn,
    policy: PolicyDep,
    now: Now,
    token: Token = None,
) -> Response:
    """What the button says. The form carries the ETag of the page it was on: nobody agrees to what he has not seen."""
    form = await _checked(request, token)
    permit(principal, Action.APPROVE, (await store.load(session, approval_id)).row.model)
    try:
        reason = ReasonSpec(reason=form.get("reason", "")).reason
    except ValidationError as exc:
        raise InvalidInput("Say why.", reasons=["reason: from 1 to 2,000 characters"]) from exc
    who = Actor(principal.person, principal.grant.role, principal.proof)
    cause, etag = Cause(who, "page", request.state.request_id, principal.automated), form.get("etag", "")
    if verb == "approve":
        await approvals.approve(session, approval_id, etag, reason, platform=policy, cause=cause, now=now)
    else:
        await approvals.reject(session, approval_id, etag, reason, cause=cause, now=now)
    return RedirectResponse(f"/pages/approvals/{approval_id}", 303, _HEADERS)


async def style() -> Response:
    return Response(_pages().get_template("style.css").render(), headers=_HEADERS, media_type="text/css")


async def _checked(request: Request, token: str | None) -> Mapping[str, str]:
    """The form, if it came from a page of this session for this address. Raises Forbidden."""
    form = await _form(request)
    if token is None or not hmac.compare_digest(form.get("proof", ""), _proof(token, request.url.path)):
        raise Forbidden("This did not come from a page of yours; open the page and press the button there.")
    return form


async def _form(request: Request) -> Mapping[str, str]:
    """Fields of a form sent by one of our own pages. Raises Forbidden for one that names another origin."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden("This was sent by a page of somebody else.")
    fields = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=20)
    return {name: values[0] for name, values in fields.items()}


def _proof(token: str | None, path: str) -> str:
    return hmac.new((token or "").encode(), path.encode(), sha256).hexdigest()


def _why_not(principal: Principal, view: ApprovalView) -> str:
    """Why there are no buttons; "": there are."""
    if view.state is not State.PENDING:
        return f"It is {view.state}. {view.why}"
    if principal.grant.role not in {Role.APPROVER, Role.ADMIN} or principal.grant.scopes:
        return f"The role {principal.grant.role} does not approve."
    if view.model is not None and not covers(principal.grant.models, view.model):
        return f"Your key does not cover {view.model}."
    if principal.automated:
        return "A program approves nothing."
    if not view.automated and same_person(principal.person, view.author):
        return "You asked for it yourself; another person has to decide."
    if any(same_person(principal.person, vote.person) for vote in view.votes):
        return "You have agreed already; others have to."
    return ""


def _asked(view: ApprovalView) -> dict[str, object]:
    return {"strategy": view.content["plan"]["strategy"]} if view.content.get("plan") else {}


def _facts(view: ApprovalView) -> list[tuple[str, str]]:
    """Everything in the content that identifies what is agreed to, a line each."""
    shown = {
        "version": "version",
        "stable": "in place of version",
        "stage": "stage",
        "digest": "digest of the artifact",
        "config_sha256": "SHA-256 of model.yaml",
        "evidence_sha256": "SHA-256 of the evidence",
        "rollout": "rollout",
        "revision": "revision",
    }
    return [(said, str(view.content[name])) for name, said in shown.items() if view.content.get(name) is not None]


def _refused(request: Request, exc: Exception) -> Response:
    if isinstance(exc, Unauthenticated) and not request.url.path.endswith("/sign-in"):
        return RedirectResponse("/pages/sign-in", 303, _HEADERS)
    match exc:
        case ControlPlaneError():
            error = exc
        case RequestValidationError():
            error = InvalidInput("The address or the form cannot be used.")
        case _:
            error = NotFound("There is no such page.")
    reasons = [str(reason) for reason in error.extra.get("reasons") or () if reason != error.detail]
    back = request.url.path.rpartition("/")[0] if request.method == "POST" else "/pages/approvals"
    return _page("refused.html", error.status, error=error, reasons=reasons, back=back)


def _page(name: str, status: int = 200, **values: object) -> Response:
    return HTMLResponse(_pages().get_template(name).render(**values), status, _HEADERS)


@lru_cache(maxsize=1)
def _pages() -> Environment:
    loader = PackageLoader("control_plane.api", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
