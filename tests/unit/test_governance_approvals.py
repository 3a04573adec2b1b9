"""Approvals: who may agree, and when one is over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.contracts import policies
from control_plane.domain.governance import approvals, policy
from control_plane.domain.governance.approvals import Approval, State, Voter
from control_plane.domain.governance.policy import Operation, Policy, Rule, Tier
from control_plane.errors import Conflict, Forbidden, InvalidInput, StaleProposal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHOWN, OTHER = b"a" * 32, b"b" * 32
ASKED = Approval("Ann Lee", 1, NOW + timedelta(hours=1), SHOWN)
BEN, CEM = Voter("Ben"), Voter("Cem")


def test_one_other_person_is_enough_where_one_is_asked_for() -> None:
    given = approvals.approve(ASKED, BEN, content=SHOWN, now=NOW)
    assert (given.state, given.agreed, given.why) == (State.APPROVED, ("Ben",), "Approved by Ben.")


@pytest.mark.parametrize("name", ["Ann Lee", "ann lee", " Ann  Lee ", "\uff21\uff2e\uff2e lee"])
def test_the_author_is_no_second_person_however_the_name_is_written(name: str) -> None:
    for act in (
        lambda: approvals.approve(ASKED, Voter(name), content=SHOWN, now=NOW),
        lambda: approvals.reject(ASKED, Voter(name), "no", now=NOW),
    ):
        with pytest.raises(Forbidden, match="another person"):
            act()


def test_a_program_approves_nothing_not_even_what_a_program_asked_for() -> None:
    for asked in (ASKED, replace(ASKED, author=None)):
        with pytest.raises(Forbidden, match="A program does not approve"):
            approvals.approve(asked, Voter("bot", automated=True), content=SHOWN, now=NOW)


def test_any_person_may_agree_to_what_a_program_asked_for() -> None:
    assert approvals.approve(replace(ASKED, author=None), BEN, content=SHOWN, now=NOW).state is State.APPROVED


def test_a_quorum_counts_persons_and_each_once() -> None:
    two = replace(ASKED, quorum=2)
    one = approvals.approve(two, BEN, content=SHOWN, now=NOW)
    assert (one.state, one.agreed) == (State.PENDING, ("Ben",))
    with pytest.raises(Conflict, match="BEN approved this before; one more person is needed"):
        approvals.approve(one, Voter("BEN"), content=SHOWN, now=NOW)
    assert approvals.approve(one, CEM, content=SHOWN, now=NOW).state is State.APPROVED


def test_nobody_agrees_to_what_is_no_longer_what_was_shown() -> None:
    with pytest.raises(StaleProposal):
        approvals.approve(ASKED, BEN, content=OTHER, now=NOW)
    assert approvals.look(ASKED, content=OTHER, now=NOW).state is State.STALE
    assert approvals.look(ASKED, content=None, refused="A rollout is open.", now=NOW) == ASKED
    assert approvals.look(ASKED, content=SHOWN, now=NOW) == ASKED


def test_time_ends_it_to_the_second_and_nobody_decides_after_that() -> None:
    late = ASKED.expires_at
    for act in (
        lambda: approvals.approve(ASKED, BEN, content=SHOWN, now=late),
        lambda: approvals.reject(ASKED, BEN, "no", now=late),
        lambda: approvals.withdraw(ASKED, Voter("Ann Lee"), "no", admin=False, now=late),
    ):
        with pytest.raises(Conflict, match="time"):
            act()
    assert approvals.look(ASKED, content=SHOWN, now=late).state is State.EXPIRED
    assert approvals.look(ASKED, content=SHOWN, now=late - timedelta(microseconds=1)).state is State.PENDING
    assert {State.EXPIRED, State.REJECTED} == approvals.ESCALATES


def test_only_its_author_or_an_admin_takes_it_back() -> None:
    assert approvals.withdraw(ASKED, Voter("ann lee"), "x", admin=False, now=NOW).state is State.WITHDRAWN
    assert approvals.withdraw(ASKED, BEN, "x", admin=True, now=NOW).state is State.WITHDRAWN
    for voter in (BEN, Voter("Ann Lee", automated=True)):
        with pytest.raises(Forbidden):
            approvals.withdraw(ASKED, voter, "x", admin=False, now=NOW)
    with pytest.raises(Forbidden):
        approvals.withdraw(replace(ASKED, author=None), BEN, "x", admin=False, now=NOW)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["approve", "reject", "withdraw", "look"]),
            st.sampled_from(["Ann Lee", "Ben", "ben", "Cem", "Dan"]),
            st.booleans(),
            st.sampled_from([SHOWN, OTHER]),
            st.integers(0, 4_000),
        ),
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_whatever_happens_it_is_approved_by_that_many_others_in_time_or_not_at_all(
    steps: list[tuple[str, str, bool, bytes, int]], quorum: int
) -> None:
    state = replace(ASKED, quorum=quorum)
    for verb, person, program, content, at in sorted(steps, key=lambda step: step[-1]):
        before, now, who = state, NOW + timedelta(seconds=at), Voter(person, program)
        try:
            if verb == "approve":
                state = approvals.approve(state, who, content=content, now=now)
                assert now < state.expires_at
                assert content == SHOWN
            elif verb == "reject":
                state = approvals.reject(state, who, "no", now=now)
            elif verb == "withdraw":
                state = approvals.withdraw(state, who, "no", admin=False, now=now)
            else:
                state = approvals.look(state, content=content, now=now)
        except (Conflict, Forbidden):
            assert state == before
        if before.state is not State.PENDING:
            assert state == before
    persons = {name.casefold() for name in state.agreed}
    assert "ann lee" not in persons
    assert len(persons) == len(state.agreed) <= quorum
    assert (state.state is State.APPROVED) == (len(persons) == quorum)


DEV, PROD = policies.template("dev"), policies.template("prod")
CHANGES = (Operation.PROMOTE, Operation.DEPLOY, Operation.RETRAIN, Operation.SET_TRAFFIC, Operation.SKIP_STEPS)


@pytest.mark.parametrize("automated", [True, False])
def test_the_templates_are_what_they_are_for(automated: bool) -> None:
    for operation in (*CHANGES, Operation.CONFIGURE):
        assert policy.ruling(DEV, operation, automated=automated).tier is Tier.AUTOMATIC
        assert policy.ruling(PROD, operation, automated=automated).tier is Tier.APPROVAL
    assert policy.ruling(PROD, Operation.ROLL_BACK_SETTLED, automated=True).tier is Tier.APPROVAL


@given(st.sampled_from(Tier), st.sampled_from(Tier), st.booleans())
def test_no_policy_keeps_a_person_from_rolling_back_or_lets_a_program_erase(
    tier: Tier, persons: Tier, named: bool
) -> None:
    rules = {operation: Rule(tier, persons) for operation in Operation} if named else {}
    strict = Policy("any", rules)
    for operation in (Operation.ROLL_BACK, Operation.ROLL_BACK_SETTLED, Operation.PAUSE_ROLLOUT):
        assert policy.ruling(strict, operation, automated=False).tier is Tier.AUTOMATIC
    assert policy.ruling(strict, Operation.ERASE, automated=True).tier is Tier.HUMAN_ONLY


def test_what_no_rule_names_is_automatic_only_if_it_calms_things_down() -> None:
    silent = {o for o in Operation if policy.ruling(Policy("empty"), o, automated=True).tier is Tier.AUTOMATIC}
    assert silent == {Operation.LOG, Operation.NOTIFY, Operation.PAUSE_ROLLOUT, Operation.ROLL_BACK}


def test_a_policy_that_cannot_be_used_is_refused_with_every_reason() -> None:
    rules = {"promote": {"tier": "sometimes"}, "retrain": {"tier": "approval", "quorums": 2}}
    with pytest.raises(InvalidInput) as refused:
        policies.parsed({"kind": "rollout", "name": "x", "rules": rules})
    said = " ".join(refused.value.extra["reasons"])
    assert all(word in said for word in ("kind", "rules.promote", "quorums"))
    with pytest.raises(InvalidInput) as refused:
        policies.parsed({"kind": "policy", "name": "x", "rules": {"promote": {"tier": "approval", "quorum": 0}}})
    assert refused.value.extra["reasons"] == ["rules.promote.quorum: from 1 to 10 persons."]
