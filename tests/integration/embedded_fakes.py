"""The real supervisor, Postgres and Redis around small stand-ins for our own processes.

`python -m tests.integration.embedded_fakes [--detached | stop]` is `python -m control_plane.embedded` but for that.
A stand-in does what `$MLCP_HOME/fakes/<name>` says, one word: `exit` (ends at once with code 3), `deaf` (ignores
SIGTERM), `late` (is never ready); without a file it is ready and waits to be stopped.
"""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import control_plane.embedded.__main__ as embedded
from control_plane.embedded import stack


def main() -> int:
    if sys.argv[1:2] == ["child"]:
        return child(sys.argv[2], sys.argv[3:])
    command = (sys.executable, "-m", "tests.integration.embedded_fakes", "child")
    stack._python = lambda module, *arguments: (*command, module.removeprefix("control_plane."), *arguments)
    return embedded.main()


def child(name: str, arguments: list[str]) -> int:
    manner = Path(os.environ["MLCP_HOME"], "fakes", name)
    told = manner.read_text() if manner.exists() else ""
    sys.stderr.write(f"{name} starts, told {told!r}\n")
    if told == "exit":
        return 3
    if name == "api.init":
        Path(os.environ["MLCP_HOME"], "keys", "admin.key").touch(mode=0o600)
    if name in ("api.init", "embedded.bootstrap"):
        return 0
    if told == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    port = os.environ.get({"api": "MLCP_API_PORT", "router": "MLCP_ROUTER_PORT"}.get(name, ""))
    if "--port" in arguments:
        port = arguments[arguments.index("--port") + 1]
    if port:
        threading.Thread(target=_serve, args=(int(port),), daemon=True).start()
    if name == "router":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # a worker it would have forked
    if told != "late":
        Path(os.environ["MLCP_READY_FILE"]).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def _serve(port: int) -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    http.server.HTTPServer(("127.0.0.1", port), Healthy).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
