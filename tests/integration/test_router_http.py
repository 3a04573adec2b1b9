"""HTTP as clients really speak it, byte by byte, to one worker."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.data_plane import document, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving

pytestmark = pytest.mark.integration
HEAD = b"POST /ml/churn/predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer test-key\r\n"
BODY = b'{"features": {"a": 1}}'


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 240)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return int(head.split()[1]), head, await self.reader.readexactly(length)

    async def ended(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 240) == b""


@pytest.fixture
async def wire(home: Path, tmp_path: Path) -> AsyncIterator[Wire]:
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address), max_body_bytes=1000))
    async with serving(server), worker(home, "unix:///nowhere/redis.sock") as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        yield Wire(reader, writer)
        writer.close()


def request(body: bytes = BODY, *lines: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def test_pipelined_requests_are_answered_in_order_on_one_connection(wire: Wire) -> None:
    many = b"".join(request(b'{"features": {}, "request_id": "%d"}' % n) for n in range(100))
    wire.writer.write(many + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    for n in range(100):
        status, _, body = await wire.answer()
        assert (status, b'"request_id":"%d"' % n in body) == (200, True)
    assert (await wire.answer())[2] == b'{"status":"ok"}'


async def test_a_request_may_arrive_byte_by_byte_or_chunked(wire: Wire) -> None:
    for byte in request():
        wire.writer.write(bytes([byte]))
        await wire.writer.drain()
    assert (await wire.answer())[0] == 200
    wire.writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for at in range(0, len(BODY), 5):
        piece = BODY[at : at + 5]
        wire.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    wire.writer.write(b"0\r\n\r\n")
    assert (await wire.answer())[0] == 200


async def test_who_expects_continue_is_told_to_unless_the_body_is_too_large(wire: Wire) -> None:
    wire.writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY))
    assert (await wire.answer())[0] == 100
    wire.writer.write(BODY)
    assert (await wire.answer())[0] == 200
    wire.writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: 5000\r\n\r\n")
    status, head, _ = await wire.answer()
    assert status == 413
    assert b"connection: close" in head


async def test_an_endless_body_is_refused_at_its_limit_and_the_answer_still_arrives(wire: Wire) -> None:
    wire.writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(50):
        wire.writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
    assert (await wire.answer())[0] == 413


async def test_head_gets_the_head_only_and_http_1_0_one_answer(wire: Wire) -> None:
    wire.writer.write(b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n")
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 15" in head
    wire.writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    assert (await wire.answer())[2] == b'{"status":"ok"}'
    assert await wire.ended()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", 400),
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 100_000, 431),
    ],
    ids=["tls", "no colon", "smuggling", "long path", "endless header"],
)
async def test_what_is_no_http_gets_a_problem_document(wire: Wire, sent: bytes, status: int) -> None:
    wire.writer.write(sent)
    got, head, body = await wire.answer()
    assert (got, b"application/problem+json" in head) == (status, True)
    assert body.startswith(b'{"type":')
    if status != 404:
        assert await wire.ended()


async def test_a_client_that_leaves_disturbs_nobody(home: Path, tmp_path: Path) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    server.delay_s = 0.2
    save(home, document(1, target("1", server.address), max_in_flight=2))
    async with serving(server), worker(home, "unix:///nowhere/redis.sock") as url:
        port = int(url.rpartition(":")[2])
        for _ in range(3):
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request())
                await writer.drain()
                writer.close()
            await asyncio.sleep(0.5)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        assert (await Wire(reader, writer).answer())[0] == 200, "their places are free again"
        writer.close()
