"""A real HTTP server in a thread that answers what a test declares and keeps what it was asked."""

import json
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: Any  # parsed JSON, bytes of another content type, None where there was none


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # instead of `body`
    drop: bool = False  # close the connection without an answer


@dataclass
class Answering:
    """`declare` what comes next for a method and path; the last one declared stays."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    _next: defaultdict[tuple[str, str], deque[Answer]] = field(default_factory=lambda: defaultdict(deque))

    def declare(self, method: str, path: str, *answers: Answer) -> None:
        self._next[method, path].extend(answers)

    def ok(self, method: str, path: str, body: Any, status: int = 200) -> None:
        self.declare(method, path, Answer(status, body))

    def problem(self, method: str, path: str, status: int, slug: str, **extra: Any) -> None:
        document = {"type": f"https://errors.control-plane.dev/{slug}", "title": "A title", "status": status}
        document |= {"detail": "What went wrong.", **extra}
        self.declare(method, path, Answer(status, document, {"content-type": "application/problem+json"}))

    def next(self, method: str, path: str) -> Answer:
        declared = self._next[method, path]
        if not declared:
            return Answer(404, {"type": "x/not-found", "title": "?", "status": 404, "detail": f"{method} {path}"})
        return declared.popleft() if len(declared) > 1 else declared[0]


@contextmanager
def answering() -> Iterator[Answering]:
    state = Answering()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            split = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_json = headers.get("content-type", "application/json").startswith("application/json")
            body = json.loads(content) if content and is_json else content or None
            state.asked.append(Asked(self.command, split.path, query, headers, body))
            answer = state.next(self.command, split.path)
            if answer.drop:
                # A reset, not a polite end: what a killed server leaves behind.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            data = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"content-type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _handle

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):  # dropped on purpose
                self.rfile.close()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
