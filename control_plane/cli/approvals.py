"""`mlcp approvals`: what waits for a second person."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Limit, OfModel, Reason, ago, moment, say, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from typing_extensions import TypeIs

    from control_plane.sdk.answers import ApprovalView

ApprovalId = Annotated[str, typer.Argument(help="The approval's id.", metavar="ID")]
Seen = Annotated[
    str | None, typer.Option("--etag", help="What you have seen; left out: as it is shown now.", metavar="ETAG")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="What waits for a second person.")
    group.command(name="list")(list_approvals)
    group.command(name="show")(show_approval)
    group.command()(approve)
    group.command()(reject)
    group.command()(withdraw)
    app.add_typer(group, name="approvals")


def list_approvals(
    model: OfModel = None,
    state: Annotated[str, typer.Option("--state", help="pending, approved, rejected, ..., or all.")] = "pending",
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """What waits for a yes, newest first; --state shows what was decided."""
    with connect.admin() as cp:
        found = cp.approvals(model=model, state=None if state == "all" else state, limit=limit).items
    rows = [(a.id, f"{a.operation} {a.model or ''}", a.author, a.state, ago(a.created_at)) for a in found]
    show(found, as_json, table(["=id", "what", "by", "state", "=age"], rows))


def show_approval(approval: ApprovalId, as_json: Json = False) -> None:
    """What would happen, on what grounds, and who has said what."""
    with connect.admin() as cp:
        found = cp.approval(approval)
    show(found, as_json, *described(found))


def approve(approval: ApprovalId, reason: Reason, etag: Seen = None, as_json: Json = False) -> None:
    """Agree. With the last person needed it is carried out at once."""
    with connect.admin() as cp:
        found = cp.approve(approval, etag=etag or cp.approval(approval).etag, reason=reason)
    show(found, as_json, *described(found))


def reject(approval: ApprovalId, reason: Reason, etag: Seen = None, as_json: Json = False) -> None:
    """Refuse it, for everybody."""
    with connect.admin() as cp:
        found = cp.reject(approval, etag=etag or cp.approval(approval).etag, reason=reason)
    show(found, as_json, *described(found))


def withdraw(approval: ApprovalId, reason: Reason, etag: Seen = None, as_json: Json = False) -> None:
    """Take back what you asked for."""
    with connect.admin() as cp:
        found = cp.withdraw(approval, etag=etag or cp.approval(approval).etag, reason=reason)
    show(found, as_json, *described(found))


def is_one(answer: object) -> "TypeIs[ApprovalView]":
    """Whether what came back waits for an approval; nothing is imported for the common case."""
    return type(answer).__name__ == "ApprovalView"


def told(approval: "ApprovalView") -> list[str]:
    """The answer to a request that has to wait."""
    many = "another person" if approval.quorum == 1 else f"{approval.quorum} other persons"
    return [
        f"Nothing has happened yet: this needs the approval of {many}.",
        f"mlcp approvals show {approval.id}",
    ]


def waits(approval: "ApprovalView", as_json: bool) -> None:
    """Print `told`, or the approval as JSON."""
    if as_json:
        show(approval, True)
    else:
        for line in told(approval):
            say(line)


def described(approval: "ApprovalView") -> "list[RenderableType]":
    program = " (a program)" if approval.automated else ""
    lines: list[RenderableType] = [
        f"Approval   {approval.id}",
        f"What       {approval.operation} of {approval.model or 'the installation'}",
        f"Asked by   {approval.author}{program}, {ago(approval.created_at)} ago: {approval.reason}",
        f"State      {approval.state}" + (f": {approval.why}" if approval.why else ""),
    ]
    if approval.state == "pending":
        yes = sum(vote.agrees for vote in approval.votes)
        lines += [f"Needs      {approval.quorum - yes} of {approval.quorum}, until {moment(approval.expires_at)} UTC"]
    lines += [f"{'Will' if at == 0 else '':10} {sentence}" for at, sentence in enumerate(approval.will)]
    judged: dict[str, Any] = approval.content.get("judged") or {}
    if judged.get("value") is not None:
        lines.append(f"Judged     {judged['metric']} {judged['value']:.4g}, minimum {judged['minimum']}")
    lines += [
        f"{'Votes' if at == 0 else '':10} {vote.person}: {'yes' if vote.agrees else 'no'}, {vote.reason}"
        for at, vote in enumerate(approval.votes)
    ]
    lines += [f"{'Result' if at == 0 else '':10} {k} {v}" for at, (k, v) in enumerate((approval.result or {}).items())]
    return [*lines, f"SHA-256    {approval.content_sha256}"]
