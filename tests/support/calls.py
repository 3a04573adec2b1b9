"""Calls to a model server and a server that only echoes, for who tests what lies between."""

import asyncio
import time
from collections.abc import Callable

from control_plane.router.calls import request_head

HEAD = request_head("POST", "/predict")


class Asked:
    """A call that remembers how it ended; `then` is called as soon as it is answered."""

    def __init__(self, body: bytes, seconds: float = 5.0) -> None:
        self.request = b"%b%d\r\n\r\n%b" % (HEAD, len(body), body)
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.patience = self.deadline
        self.then: Callable[[], object] = lambda: None
        self.at = 0.0  # when it ended, in monotonic seconds
        self.ended: asyncio.Future[bytes | str] = asyncio.get_running_loop().create_future()

    def answered(self, status: int, body: bytes) -> None:
        self.at = time.monotonic()
        self.ended.set_result(body)  # a second end of a call raises here
        self.then()

    def failed(self, reason: str) -> None:
        self.at = time.monotonic()
        self.ended.set_result(reason)


class Server:
    """Echoes bodies. Counts connections and reads; `held` and `seconds` keep answers back, `deaths` connections die."""

    def __init__(self) -> None:
        self.connections = 0
        self.reads: list[int] = []  # requests in each read
        self.read = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()
        self.seconds = 0.0
        self.deaths = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(1 << 20):
                if self.deaths:
                    self.deaths -= 1
                    return
                bodies = [part.partition(b"\r\n\r\n")[2] for part in data.split(b"POST ")[1:]]
                self.reads.append(len(bodies))
                self.read.set()
                await self.held.wait()
                await asyncio.sleep(self.seconds)
                for body in bodies:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except ConnectionError:
            pass
        finally:
            writer.close()


async def ends(calls: list[Asked]) -> list[bytes | str]:
    async with asyncio.timeout(10):
        return list(await asyncio.gather(*(call.ended for call in calls)))
