"""Notices on a real database, queue, web and mail servers: told once each, by jobs that wait for nobody."""

import asyncio
import base64
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import queue
from control_plane.adapters.objects import Objects, location
from control_plane.domain.governance.policy import Severity
from control_plane.domain.notices import Notice
from control_plane.sdk import AsyncControlPlane
from control_plane.services import notices, reports
from control_plane.settings import Receiver, WorkerSettings
from control_plane.worker import relay
from control_plane.worker.carry_out import Carrier
from tests.support.api import Api
from tests.support.mail_server import mail_server
from tests.support.processes import PATIENCE_S
from tests.support.web_receiver import WebReceiver

pytestmark = pytest.mark.integration
_MANY = 12  # notices to each receiver
Sessions = async_sessionmaker[AsyncSession]
HUSH = "B00/T0psecret"  # in addresses and keys; to be seen nowhere else


@asynccontextmanager
async def worker(dsn: str, home: Path, maker: Sessions, receivers: Sequence[Receiver]) -> AsyncIterator[None]:
    """The worker's relay and queue, which do not wait for the time of the next attempt."""
    settings = WorkerSettings(
        postgres_dsn=SecretStr(dsn), home=home, receivers=tuple(receivers), public_url="https://mlcp.example/"
    )
    await asyncio.to_thread(queue.prepare, dsn)

    async def look(jobs: queue.Queue) -> None:
        while True:
            async with maker.begin() as session:
                await session.execute(text("UPDATE jobs_wanted SET not_before = NULL WHERE state = 'wanted'"))
            await relay.look(maker, jobs)
            await asyncio.sleep(0.2)

    async with queue.opened(dsn, Carrier(settings, maker)) as jobs:
        tasks = [asyncio.create_task(look(jobs)), asyncio.create_task(jobs.work(concurrency=1, patience_s=0.1))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def web(name: str, receiver: WebReceiver, **more: object) -> Receiver:
    url = f"http://127.0.0.1:{receiver.port}/{HUSH}"
    return Receiver.model_validate({"name": name, "kind": "webhook", "url": url, "secret": HUSH, **more})


async def tell(maker: Sessions, number: int = 0, severity: Severity = Severity.INFO, key: str | None = None) -> None:
    said = Notice(key or f"n:{number}", "signal.notify", severity, "fraud", f"number {number}", ("why",), "/pages/x")
    async with maker.begin() as session:
        await notices.tell(session, said, now=datetime.now(UTC))


async def until(look: object, what: str, within: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within):
        while not look():  # type: ignore[operator]  # noqa: ASYNC110  (the other end is not ours to wait on)
            await asyncio.sleep(0.05)
    assert what


async def states(maker: Sessions) -> list[tuple[str, str]]:
    query = "SELECT args->>'receiver', state FROM jobs_wanted WHERE args ? 'receiver' ORDER BY id"
    async with maker() as session:
        return [(receiver, state) for receiver, state in await session.execute(text(query))]


async def test_a_dead_receiver_and_a_slow_one_hold_up_nobody_and_lose_nothing(
    maker: Sessions, dsn: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, slow, dead = await WebReceiver().start(), await WebReceiver(delay_s=0.5).start(), await WebReceiver().start()
    await dead.stop()
    receivers = [web("dead", dead), web("slow", slow), web("good", good)]
    async with worker(dsn, home, maker, receivers):
        for number in range(_MANY):
            await tell(maker, number)
            await tell(maker, number)  # the same again is one notice
        await until(lambda: len(good.seen) == _MANY, "the good one has all")
        assert len(slow.seen) < _MANY
        assert dead.seen == []
        await until(lambda: len(slow.seen) == _MANY, "the slow one has all")
        await dead.start()
        await until(lambda: len(dead.seen) == _MANY, "the dead one is back and has all")
    for receiver in (good, slow, dead):
        assert sorted(body["title"] for body in receiver.bodies) == sorted(f"number {n}" for n in range(_MANY))
        assert len({headers["x-mlcp-delivery"] for headers, _ in receiver.seen}) == _MANY
        await receiver.stop()
    assert {state for _, state in await states(maker)} == {"succeeded"}
    async with maker() as session:
        rows = [
            str((await session.execute(text(f"SELECT array_agg(t::text) FROM {table} t"))).scalar())
            for table in ("jobs_wanted", "notices", "notice_deliveries")
        ]
    logged = capfd.readouterr()
    assert HUSH not in "".join([*rows, logged.out, logged.err])


async def test_errors_of_a_receiver_are_tried_again_signed_and_under_the_same_id(
    maker: Sessions, dsn: str, home: Path, api: Api
) -> None:
    receiver = await WebReceiver(answers=[500, 503, 404]).start()
    pager = await WebReceiver().start()
    async with (
        AsyncControlPlane(api.url, await api.key("operator")) as cp,
        worker(dsn, home, maker, [web("hook", receiver), web("pager", pager, severity="critical")]),
    ):
        await cp.try_notification(reason="does it arrive", severity="warning")
        await until(lambda: receiver.seen, "it arrives")
        await until(lambda: receiver.answers == [], "after three refusals")
        [delivery] = (await cp.notifications()).items
        while delivery.state != "succeeded":
            await asyncio.sleep(0.1)
            [delivery] = (await cp.notifications()).items
    assert (delivery.receiver, delivery.severity, delivery.attempts, delivery.error) == ("hook", "warning", 4, None)
    [(headers, body)] = receiver.seen
    mac = hmac.new(HUSH.encode(), f"{headers['x-mlcp-timestamp']}.".encode() + body, sha256).digest()
    assert headers["x-mlcp-signature"] == "v1," + base64.b64encode(mac).decode()
    assert headers["x-mlcp-delivery"] == str(delivery.id) == json.loads(body)["id"]
    assert json.loads(body)["text"] == ["A trial by operator-person: does it arrive"]
    assert pager.seen == [], "the route names critical ones alone"
    await receiver.stop()
    await pager.stop()


async def test_a_report_is_mailed_with_its_documents_over_tls_and_slack_is_told(
    maker: Sessions, dsn: str, home: Path, tmp_path: Path
) -> None:
    report = "0195eac0-7c00-7000-8000-000000000001"
    objects = Objects(location(None, home), reports.FOLDER)
    objects.put(f"{report}.json", b"{}")
    objects.put(f"{report}.pdf", b"%PDF-1.7")
    chat = await WebReceiver().start()
    (tmp_path / "hook").write_text(f"http://127.0.0.1:{chat.port}/{HUSH}\n")
    async with mail_server(tmp_path) as server:
        server.refuse = 1
        box = {"url": f"127.0.0.1:{server.port}", "to": ["risk@bank.example"], "user": "mlcp", "secret": HUSH}
        mail = Receiver.model_validate({"name": "mail", "kind": "email", "ca_file": server.certificate, **box})
        slack = Receiver(name="chat", kind="slack", url_file=tmp_path / "hook")
        async with worker(dsn, home, maker, [mail, slack]):
            await tell(maker, 1, key=f"report:{report}")
            await until(lambda: server.letters and chat.seen, "both are told")
    [letter] = server.letters
    assert (letter["To"], letter["Subject"]) == ("risk@bank.example", "[info] number 1")
    assert {part.get_filename() for part in letter.iter_attachments()} == {"number_1.json", "number_1.pdf"}
    body = letter.get_body()
    assert body is not None
    assert "https://mlcp.example/pages/x" in body.get_content()
    assert server.logins
    assert set(server.plain) <= {"EHLO", "STARTTLS"}, "nothing is said before TLS"
    [said] = chat.bodies
    assert said["text"] == "[info] number 1"
    assert "https://mlcp.example/pages/x" in said["attachments"][0]["text"]
    await chat.stop()
