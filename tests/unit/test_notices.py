"""Who is told of what, and when it is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr, ValidationError

from control_plane.adapters.notify import Mailbox, Message, _letter, _quoted
from control_plane.domain.governance.policy import Severity
from control_plane.domain.notices import GIVEN_UP, Route, again, receivers
from control_plane.settings import Receiver

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUTES = (
    Route("all", Severity.INFO),
    Route("pager", Severity.CRITICAL),
    Route("fraud-team", Severity.WARNING, models=("fraud*",)),
    Route("risk", Severity.INFO, events=("approval.*", "report.made")),
)


@pytest.mark.parametrize(
    ("event", "severity", "model", "told"),
    [
        ("signal.notify", Severity.INFO, "churn", ["all"]),
        ("signal.notify", Severity.WARNING, "fraud", ["all", "fraud-team"]),
        ("signal.notify", Severity.WARNING, "churn", ["all"]),
        ("signal.notify", Severity.CRITICAL, None, ["all", "pager", "fraud-team"]),
        ("approval.asked", Severity.WARNING, "churn", ["all", "risk"]),
    ],
)
def test_a_receiver_is_told_what_its_route_names(
    event: str, severity: Severity, model: str | None, told: list[str]
) -> None:
    assert receivers(ROUTES, event=event, severity=severity, model=model) == told


def test_attempts_are_ever_farther_apart_to_a_quarter_of_an_hour_and_end_after_a_week() -> None:
    waits = [again(n, since=NOW, now=NOW, jitter=0.5) for n in range(1, 40)]
    seconds = [(at - NOW).total_seconds() for at in waits if at is not None]
    assert seconds[:4] == [5, 10, 20, 40]
    assert seconds == sorted(seconds)
    assert seconds[-1] == 900
    assert again(500, since=NOW, now=NOW + GIVEN_UP + timedelta(seconds=1), jitter=0) is None


def test_a_receiver_that_cannot_work_is_refused_by_name_and_its_secrets_are_not_shown() -> None:
    for wrong in (
        {"kind": "slack"},
        {"kind": "email", "url": "mail:25"},
        {"kind": "email", "url": "mail.example:25", "to": ["a@b"], "tls": "none"},
        {"kind": "pigeon", "url": "https://hush.example/secret"},
    ):
        with pytest.raises(ValidationError) as refused:
            Receiver.model_validate({"name": "me", **wrong})
        assert "secret" not in str(refused.value)
    assert "hush" not in repr(Receiver(name="me", kind="slack", url=SecretStr("https://hush")))


def test_text_of_people_can_neither_mention_in_slack_nor_add_a_header_to_a_letter() -> None:
    assert _quoted("<!channel> & <https://x|y>") == "&lt;!channel&gt; &amp; &lt;https://x|y&gt;"
    said = Message("1", "e", "info", None, "a\r\nBcc: all@x", ["text"], None, NOW)
    letter = _letter(Mailbox("h", 25, "none", "a@x", ["b@x"]), said)
    assert letter["Bcc"] is None
    assert letter["Subject"] == "[info] a Bcc: all@x"
