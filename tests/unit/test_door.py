"""Failed attempts to come in: limited by address, and never for what was right before."""

from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from control_plane.api.door import Door
from control_plane.errors import RateLimited
from control_plane.settings import ApiSettings


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    dsn = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    return Door(ApiSettings(postgres_dsn=dsn, failed_sign_ins_per_minute=6), clock=clock)


def test_an_address_fails_so_often_at_once_and_then_now_and_again(door: Door, clock: Clock) -> None:
    for _ in range(6):
        door.admit("10.0.0.1", "mlcp_wrong")
        door.failed("10.0.0.1", "key")
    for clock.now in (0.0, 5.0, 9.9):
        with pytest.raises(RateLimited) as refused:
            door.admit("10.0.0.1", "mlcp_wrong")
        assert refused.value.extra["retry_after_s"] == 10
    clock.now = 10
    door.admit("10.0.0.1", "mlcp_wrong")
    door.failed("10.0.0.1", "key")
    with pytest.raises(RateLimited):
        door.admit("10.0.0.1", "mlcp_wrong")
    clock.now = 10_000  # no more than a minute's worth is saved up
    for _ in range(6):
        door.admit("10.0.0.1", "mlcp_wrong")
        door.failed("10.0.0.1", "key")
    with pytest.raises(RateLimited):
        door.admit("10.0.0.1", "mlcp_wrong")


def test_other_addresses_and_what_was_right_before_go_on(door: Door) -> None:
    door.passed("mlcp_right")
    for _ in range(9):
        door.failed("10.0.0.1", "key")
    door.admit("10.0.0.1", "mlcp_right")
    door.admit("10.0.0.2", "mlcp_wrong")
    with pytest.raises(RateLimited):
        door.admit("10.0.0.1", "mlcp_another")


def test_what_is_remembered_is_bounded(door: Door) -> None:
    for number in range(12_000):
        door.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "key")
        door.passed(f"mlcp_{number}")
    assert len(door._left) == 10_000
    assert len(door._good) == 4_096


def test_a_token_is_looked_at_as_one_only_where_tokens_are_taken(door: Door) -> None:
    assert not door.is_token("a.b.c")
