"""Reading one number from Prometheus: what is news, what is none, and what is an error."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from control_plane.adapters import prometheus

NOW = 1_800_000_000.0


def vector(*values: str) -> dict[str, Any]:
    result = [{"metric": {}, "value": [NOW, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    answers: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            [query] = parse_qs(urlsplit(self.path).query)["query"]
            body = json.dumps(answers.get(query, {"status": "error", "error": "parse error"})).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", answers
        listening.shutdown()
        thread.join()


async def test_a_fresh_number_is_a_value_and_everything_else_says_what_it_is(
    server: tuple[str, dict[str, Any]],
) -> None:
    url, answers = server
    answers["q"], answers["max(timestamp(q))"] = vector("1.5"), vector(str(NOW - 10))
    assert await prometheus.read(url, "q", now=NOW) == prometheus.Reading(1.5)
    answers["max(timestamp(q))"] = vector(str(NOW - 1_000))
    assert "1000 s old" in ((await prometheus.read(url, "q", now=NOW)).stale or "")
    answers["q"] = vector()
    assert "no series" in ((await prometheus.read(url, "q", now=NOW)).stale or "")
    answers["q"] = vector("NaN")
    assert "NaN" in ((await prometheus.read(url, "q", now=NOW)).stale or "")
    answers["q"] = vector("1", "2")
    assert "2 series" in ((await prometheus.read(url, "q", now=NOW)).error or "")
    assert "parse error" in ((await prometheus.read(url, "nosense(", now=NOW)).error or "")
    assert (await prometheus.read("http://127.0.0.1:9", "q", now=NOW)).error is not None
