"""A stand-in for a model server: answers /ready and /schema on the socket of its spec. Run with the spec's path."""

import json
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path


def main(spec_path: str) -> None:
    spec = json.loads(Path(spec_path).read_text())
    pages: dict[str, object] = {
        "/ready": {key: spec[key] for key in ("model", "version", "digest")},
        "/schema": {"features": list(spec["config"]["features"]), "problem": spec["config"]["problem"]},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(pages.get(self.path, {})).encode()
            self.send_response(200 if self.path in pages else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            """Quiet."""

    Path(spec["socket"]).unlink(missing_ok=True)
    with socketserver.ThreadingUnixStreamServer(spec["socket"], Handler) as server:
        server.daemon_threads = True
        sys.stderr.write(f"serving as {os.getpid()}\n")
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
