"""The limit: nginx as a plain reverse proxy in front of our own model server, with nothing of the product between."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import descendants
from benchmarks.serving import fixed, register, systems, tools
from benchmarks.serving.fixed import Fixed
from benchmarks.serving.load import Target
from benchmarks.serving.systems import Running, Variant

ROOT = Path(__file__).parents[2]
_NGINX = """
{user}
daemon off;
worker_processes {workers};
error_log stderr error;
pid {work}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  keepalive_requests 1000000000;
  upstream model {{ server unix:{socket}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@dataclass(slots=True)
class Limit:
    """`variants`: workers of nginx; the model server has two, as ours."""

    sockets: Path
    name: str = "nginx"
    port: int = 8430
    variants: tuple[Variant, ...] = (Variant(1), Variant(2))
    nginx: Path = field(default=Path(), init=False)
    artifact: Path = field(default=Path(), init=False)
    model: Fixed | None = field(default=None, init=False)

    def prepare(self, cache: Path, model: Fixed) -> Mapping[str, str]:
        self.nginx, self.model = tools.program(cache, "nginx"), model
        self.artifact = cache / "native"
        if not self.artifact.exists():
            register.write(self.artifact, model.booster, "1.0.0")
        return {"nginx": tools.said_version(self.nginx, "-v")}

    @contextmanager
    def running(self, variant: Variant, work: Path) -> Iterator[Running]:
        import msgspec

        from model_servers.native import digest
        from model_servers.runtime.spec import Config, Spec

        assert self.model is not None
        work.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(parents=True, exist_ok=True)
        socket = self.sockets / "limit.sock"
        spec = Spec(
            model=register.MODEL,
            version="1",
            digest=digest.of_folder(self.artifact),
            artifact=str(self.artifact),
            runtime="native",
            socket=str(socket),
            config=msgspec.convert(register.CONFIG, Config),
            workers=2,
        )
        (work / "server.json").write_bytes(msgspec.json.encode(spec))
        user = "user root;" if os.getuid() == 0 else ""  # else its workers would be nobody, whom our socket refuses
        conf = _NGINX.format(user=user, workers=variant.workers, work=work.absolute(), socket=socket, port=self.port)
        (work / "nginx.conf").write_text(conf)
        bodies = work / "bodies.jsonl"
        fixed.write_bodies(bodies, self.model.rows, systems.named)
        target = Target(self.port, "/predict", bodies, {})
        server = [sys.executable, "-m", "model_servers.runtime", "--spec", str(work / "server.json")]
        argv = [str(self.nginx), "-p", str(work.absolute()), "-c", str(work.absolute() / "nginx.conf")]
        with systems.process(server, {"PYTHONPATH": str(ROOT)}, work, "model-server.log") as behind:
            _bound(socket)
            with systems.started(argv, {}, work, target) as proxy:
                roles = {"nginx": proxy.pid, "model servers": behind.pid}
                yield Running(target, systems.our_answer, lambda: {k: descendants(pid) for k, pid in roles.items()})
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)


def _bound(socket: Path) -> None:
    """Wait until there is a socket: what is not yet loaded behind it answers nginx later."""
    end = time.monotonic() + 60
    while not socket.exists():
        if time.monotonic() > end:
            raise RuntimeError(f"the model server does not listen on {socket}")
        time.sleep(0.05)
