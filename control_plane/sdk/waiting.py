"""What `wait_rollout` of both clients waits for."""

from uuid import UUID

from control_plane.contracts.approvals import ApprovalView
from control_plane.contracts.rollouts import RolloutView
from control_plane.domain.governance.approvals import State
from control_plane.domain.governance.policy import Operation
from control_plane.domain.rollouts import TERMINAL, Phase
from control_plane.errors import Conflict, DeadlineExceeded


def settled(rollout: RolloutView, *, aborted: bool) -> bool:
    """Whether there is nothing left to wait for. Raises Conflict for one that was aborted unless that is wanted."""
    if rollout.phase is Phase.ABORTED and not aborted:
        raise Conflict(
            f"The rollout of version {rollout.candidate_version} of {rollout.model} was aborted: {rollout.reason}",
            rollout_id=str(rollout.id),
        )
    return rollout.applied and (rollout.phase is Phase.BAKING or rollout.phase in TERMINAL)


def pending(answer: RolloutView | ApprovalView | UUID | str) -> ApprovalView | None:
    """The approval the answer still waits for. Raises Conflict for one that ended without a yes."""
    if not isinstance(answer, ApprovalView) or answer.state is State.APPROVED:
        return None
    if answer.state is State.PENDING:
        return answer
    raise Conflict(f"Approval {answer.id} is {answer.state}: {answer.why}", approval=str(answer.id))


def subject(answer: RolloutView | ApprovalView | UUID | str) -> tuple[UUID | str, bool]:
    """The rollout's id, and whether its abort is what is waited for."""
    if isinstance(answer, UUID | str):
        return answer, False
    if isinstance(answer, ApprovalView):
        if answer.result is None or "rollout" not in answer.result:
            raise Conflict(f"Approval {answer.id} is of {answer.operation}, which has no rollout to wait for.")
        return str(answer.result["rollout"]), answer.operation is Operation.ROLL_BACK
    return answer.id, answer.phase is Phase.ABORTED


def not_approved(approval: ApprovalView, timeout_s: float) -> DeadlineExceeded:
    left = approval.quorum - sum(vote.agrees for vote in approval.votes)
    needed = f"{left} more {'person has' if left == 1 else 'persons have'} to agree"
    return DeadlineExceeded(f"Approval {approval.id} is pending after {timeout_s:g} s: {needed}.", approval=approval.id)


def too_late(rollout: RolloutView, timeout_s: float) -> DeadlineExceeded:
    waiting = rollout.waiting_for or rollout.reason
    return DeadlineExceeded(
        f"Rollout {rollout.id} of {rollout.model} is {rollout.phase} after {timeout_s:g} s: {waiting}",
        rollout_id=str(rollout.id),
    )
