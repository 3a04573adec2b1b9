"""A real Prometheus and a real Alertmanager with the committed configurations, on a faster clock."""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support import tools
from tests.support.processes import free_port, running, wait_until

PROMETHEUS = Path(__file__).resolve().parents[2] / "infra" / "prometheus"
RUNBOOKS = "https://wiki.example.com/alerts"
SECRET = "a key of the control plane"
_FASTER = {"5m": "5s", "30m": "8s", "1h": "15s", "2h": "20s", "6h": "40s", "1d": "80s", "3d": "160s"}


@dataclass
class Monitoring:
    url: str
    received: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)  # Authorization, body

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Series of an instant query; AssertionError for one that Prometheus refuses."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=240).json()
        assert answer["status"] == "success", (expr, answer)
        return list(answer["data"]["result"])

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Alerts as the receiver got them, in order, that have these labels."""
        told = [alert for _, body in list(self.received) for alert in body["alerts"]]
        return [alert for alert in told if labels.items() <= alert["labels"].items()]


@contextmanager
def monitoring(folder: Path, target: str) -> Iterator[Monitoring]:
    """Scrapes `target` (host:port) each second. Rules are those committed; beside them those of error budgets run once
    more over shorter windows (label clock="fast", records fast:...), so that an hour is a quarter of a minute.
    """
    port, alerts_port = free_port(), free_port()
    found = Monitoring(f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        receiver = stack.enter_context(_receiver(found))
        (folder / "fast.yaml").write_text(yaml.safe_dump(_faster()))
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "5s"}
        config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]] + [str(folder / "fast.yaml")]
        del config["scrape_configs"][0]["file_sd_configs"]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{alerts_port}"]}]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        routed = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
        routed["route"] |= {"group_wait": "0s", "group_interval": "1s"}
        hook = routed["receivers"][0]["webhook_configs"][0]
        hook["url"] = re.sub(r"http://[^/]+", receiver, hook["url"])
        hook["http_config"]["authorization"]["credentials_file"] = str(folder / "key")
        (folder / "key").write_text(SECRET)
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(routed))
        alertmanager = [
            *tools.alertmanager(), f"--config.file={folder / 'alertmanager.yml'}", "--cluster.listen-address=",
            f"--storage.path={folder / 'alerts'}", f"--web.listen-address=127.0.0.1:{alerts_port}",
        ]  # fmt: skip
        prometheus = [
            tools.program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=expand-external-labels",
        ]  # fmt: skip
        environment = {**os.environ, "MLCP_RUNBOOK_URL": RUNBOOKS}
        for name, argv, ready in (
            ("alertmanager", alertmanager, f"http://127.0.0.1:{alerts_port}/-/ready"),
            ("prometheus", prometheus, f"{found.url}/-/ready"),
        ):
            child = stack.enter_context(running(argv, log=folder / f"{name}.log", env=environment))

            def answers(child: Any = child, ready: str = ready, name: str = name) -> bool:
                assert child.poll() is None, (folder / f"{name}.log").read_text()[-2_000:]
                try:
                    return httpx.get(ready, timeout=2).is_success
                except httpx.TransportError:
                    return False

            wait_until(answers, what=f"{name} answers", every=0.1)
        yield found


def _faster() -> dict[str, Any]:
    """The rules of error budgets over shorter windows, under names of their own."""
    groups: list[dict[str, Any]] = []
    for file in (PROMETHEUS.parents[1] / "model_servers" / "fraud" / "prometheus.yaml", PROMETHEUS / "rules/slo.yaml"):
        text = file.read_text().replace("model:", "fast:")
        text = re.sub(r"\[(\d+[mhd])\]", lambda found: f"[{_FASTER[found[1]]}]", text)
        groups += yaml.safe_load(text)["groups"]
    for group in groups:
        group |= {"name": f"fast {group['name']}", "interval": "1s"}
        for rule in group["rules"]:
            if "alert" in rule:
                rule["labels"]["clock"] = "fast"
    return {"groups": groups}


@contextmanager
def _receiver(found: Monitoring) -> Iterator[str]:
    """URL (scheme, host and port) of a server that keeps what is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/api/v1/webhooks/alertmanager"
            found.received.append((self.headers.get("authorization"), body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()
