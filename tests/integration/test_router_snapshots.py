"""Where a router gets its snapshot from, and what it does when everything else is dead."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from control_plane.adapters import bus
from control_plane.router import feed
from tests.support.data_plane import client, document, router, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.processes import eventually, redis_argv, running, wait_until

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
BODY = {"features": {"a": 1}}


async def test_a_newer_snapshot_is_taken_when_published_saved_and_acknowledged(
    home: Path, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def once(self: feed.Feed) -> None:
        await self._take()
        await asyncio.Event().wait()

    monkeypatch.setattr(feed.Feed, "_poll", once)  # else it might be the poll of each second that brings it
    one, two = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
    first, second = document(1, target("1", one.address)), document(2, target("2", two.address))
    publisher = bus.connect(redis)
    await bus.publish_snapshot(publisher, first, 1, 1)
    async with serving(one, two), worker(home, redis) as url, client(url) as product:

        async def answers(version: str) -> bool:
            answer = await product.post("/ml/churn/predict", json=BODY)
            return answer.status_code == 200 and answer.json()["model_version"] == version

        async def acknowledged(revision: int) -> bool:
            return [r["revision"] for r in (await bus.router_reports(publisher)).values()] == [revision]

        await eventually(lambda: answers("1"), what="the first snapshot")
        await eventually(lambda: acknowledged(1), what="its acknowledgement")
        await bus.publish_snapshot(publisher, second, 1, 2)
        await eventually(lambda: answers("2"), what="the second snapshot", every=0.005)
        await eventually(lambda: acknowledged(2), what="its acknowledgement")
        await bus.publish_snapshot(publisher, first, 1, 1)
        await bus.publish_snapshot(publisher, second.replace(b'"2"', b'"3"'), 1, 3)

        async def rejected() -> bool:
            return "checksum" in str([r["rejected"] for r in (await bus.router_reports(publisher)).values()])

        await eventually(rejected, what="the refusal of a damaged document in the report")
        assert await answers("2"), "neither an older nor a damaged document is taken"

        async def saved() -> bool:
            return (home / "router" / "snapshot.json").read_bytes() == second

        await eventually(saved, what="the copy for the next start, which is written behind the answers")
        higher_epoch = document(1, target("1", one.address), epoch=2)
        await bus.publish_snapshot(publisher, higher_epoch, 2, 1)
        await eventually(lambda: answers("1"), what="a higher epoch wins over a higher revision")
    assert await bus.router_reports(publisher) == {}, "a router that stopped in order is not waited for"
    await publisher.aclose()


async def test_with_redis_dead_snapshots_come_from_the_api_and_reports_go_there(home: Path, tmp_path: Path) -> None:
    one = FakeModelServer(tmp_path / "1.sock", "1")
    sealed, asked, reported = document(5, target("1", one.address)), list[str](), list[dict[str, object]]()

    async def api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
            body = await reader.readexactly(length)
            line = head.partition("\r\n")[0]
            asked.append(head)
            if line.startswith("post"):
                reported.append(json.loads(body))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            elif "revision=0" in line:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(sealed), sealed))

    async def serve_api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await api(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve_api, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    api_url = f"http://127.0.0.1:{port}"
    async with (
        serving(one),
        worker(home, NOWHERE, api_url=api_url, router_token="shared") as url,
        client(url) as product,
    ):

        async def there() -> bool:
            return (await product.post("/ml/churn/predict", json=BODY)).status_code == 200

        async def told() -> bool:
            return any(report["revision"] == 5 for report in reported)

        await eventually(there, what="the snapshot of the API")
        await eventually(told, what="the report to the API")
        assert all("authorization: bearer shared" in head for head in asked)
    server.close()


def test_a_router_started_with_everything_dead_serves_from_its_saved_snapshot(home: Path, tmp_path: Path) -> None:
    async def check() -> None:
        one = FakeModelServer(tmp_path / "1.sock", "1")
        save(home, document(1, target("1", one.address)))
        async with serving(one):
            with router(home, NOWHERE, workers=2) as url:
                async with client(url) as product:
                    assert (await product.post("/ml/churn/predict", json=BODY)).status_code == 200

    asyncio.run(check())


async def test_a_damaged_saved_snapshot_is_not_used_and_a_router_without_one_says_so(home: Path) -> None:
    save(home, document(1, target("1", "unix:/x"))[:-10])
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/ml/churn/predict", json=BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await product.get("/ready")).status_code == 503
        assert (await product.get("/health")).status_code == 200


async def test_switches_under_load_fail_no_request_and_answer_from_no_unrouted_version(
    home: Path, redis: str, tmp_path: Path
) -> None:
    servers = {version: FakeModelServer(tmp_path / f"{version}.sock", version) for version in ("1", "2")}
    publisher = bus.connect(redis)
    routed, answers, stop = ["1"], list[tuple[float, int, str]](), asyncio.Event()

    async def publish(revision: int) -> None:
        made = document(revision, target(routed[-1], servers[routed[-1]].address))
        await bus.publish_snapshot(publisher, made, 1, revision)

    async with serving(*servers.values()), worker(home, redis) as url, client(url) as product:

        async def customer(number: int) -> None:
            while not stop.is_set():
                sent = time.monotonic()
                answer = await product.post("/ml/churn/predict", json=BODY | {"unit_id": f"u{number}"})
                answers.append((sent, answer.status_code, answer.json().get("model_version", "")))

        await publish(1)
        await eventually(_ready(product), what="the first snapshot")
        customers = [asyncio.create_task(customer(number)) for number in range(8)]
        for revision in range(2, 12):
            routed.append("2" if routed[-1] == "1" else "1")
            published = time.monotonic()
            await publish(revision)

            async def switched(published: float = published) -> bool:
                return any(sent > published and version == routed[-1] for sent, _, version in answers)

            await eventually(switched, what="the switch", every=0.01)
            settled = time.monotonic()
            await asyncio.sleep(0.1)
            assert {version for sent, _, version in answers if sent > settled} <= {routed[-1]}
        stop.set()
        await asyncio.gather(*customers)
    assert len(answers) > 50
    assert {status for _, status, _ in answers} == {200}
    await publisher.aclose()


async def test_a_pin_sends_everything_to_one_version_and_is_released_again(home: Path, tmp_path: Path) -> None:
    one, two = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
    old, new = target("1", one.address), target("2", two.address)
    save(home, document(1, new, old, arms={"stable": (10_000, new)}, previous=old))
    pins = home / "router" / "pins"
    pins.mkdir()
    async with serving(one, two), worker(home, NOWHERE) as url, client(url) as product:

        async def answers(version: str) -> bool:
            answer = (await product.post("/ml/churn/predict", json=BODY | {"unit_id": "u"})).json()
            return bool(answer["model_version"] == version)

        assert await answers("2")
        pin = {"model": "churn", "target": old.id, "version": "1", "person": "oncall", "reason": "r", "at": "now"}
        (pins / "churn.json").write_text(json.dumps(pin))
        await eventually(lambda: answers("1"), what="the pin")
        assert (await product.get("/ml/churn/health")).json()["pinned"] is True
        (pins / "churn.json").unlink()
        await eventually(lambda: answers("2"), what="the release")


async def test_pins_are_in_the_report_until_released(home: Path, redis: str) -> None:
    old = target("1", "unix:/x")
    save(home, document(1, old))
    (home / "router" / "pins").mkdir()
    pin = {"model": "churn", "target": old.id, "version": "1", "person": "oncall", "reason": "r", "at": "now"}
    (home / "router" / "pins" / "churn.json").write_text(json.dumps(pin))
    publisher = bus.connect(redis)

    async def reported() -> object:
        return [report["pins"] for report in (await bus.router_reports(publisher)).values()]

    async with worker(home, redis):
        await eventually(_equals(reported, [{"churn": pin}]), what="the pin in the report")
        (home / "router" / "pins" / "churn.json").unlink()
        await eventually(_equals(reported, [{}]), what="the release in the report")
    await publisher.aclose()


def test_a_redis_that_dies_and_comes_back_empty_is_found_again(home: Path, tmp_path: Path) -> None:
    async def check() -> None:
        one, two = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
        folder = tmp_path / "r"
        folder.mkdir()
        url = f"unix://{folder}/redis.sock"
        publisher = bus.connect(url)
        async with serving(one, two), worker(home, url) as base, client(base) as product:
            for revision, server in ((1, one), (2, two)):
                (folder / "redis.sock").unlink(missing_ok=True)
                with running(redis_argv(folder), log=tmp_path / "redis.log") as child:
                    wait_until((folder / "redis.sock").exists, what="redis")
                    made = document(revision, target(server.version, server.address))
                    await bus.publish_snapshot(publisher, made, 1, revision)

                    async def there(version: str = server.version) -> bool:
                        answer = await product.post("/ml/churn/predict", json=BODY)
                        return answer.status_code == 200 and answer.json()["model_version"] == version

                    await eventually(there, what="the snapshot of this Redis")
                    child.kill()
                assert await there(), "its death changes nothing"
                await publisher.connection_pool.disconnect()
        await publisher.aclose()

    asyncio.run(check())


def _ready(product: httpx.AsyncClient) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return (await product.get("/ready")).status_code == 200

    return asked


def _equals(ask: Callable[[], Awaitable[object]], expected: object) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return await ask() == expected

    return asked
