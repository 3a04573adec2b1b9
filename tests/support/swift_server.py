"""`python -m tests.support.swift_server FOLDER PORT [HOST]`: OpenStack Swift with its S3 API, in one process.

A real, durable S3 server from a wheel: signatures are checked, uploads in parts are assembled, objects lie in FOLDER.
Access key `test:tester`; the secret is what SWIFT_SECRET says, `testing` without it.
"""

import os
import sys
from pathlib import Path

import eventlet
import eventlet.patcher

eventlet.patcher.monkey_patch()

from eventlet import wsgi  # noqa: E402
from swift.common import utils  # noqa: E402
from swift.common.ring.builder import RingBuilder  # noqa: E402
from swift.common.storage_policy import reload_storage_policies  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

ACCESS_KEY, SECRET_KEY = "test:tester", "testing"
_SERVERS = ("account", "container", "object")
_PROXY = """
[DEFAULT]
swift_dir = {folder}
log_level = ERROR
log_address = {folder}/no-syslog
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:slo]
use = egg:swift#slo
"""
_BACKEND = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
log_level = ERROR
log_address = {folder}/no-syslog
fallocate_reserve = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


def main() -> None:
    folder, port, host = Path(sys.argv[1]), int(sys.argv[2]), (sys.argv[3:] or ["127.0.0.1"])[0]
    secret = os.environ.get("SWIFT_SECRET", SECRET_KEY)
    (folder / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    utils.set_swift_dir(str(folder))
    reload_storage_policies()
    pool = eventlet.GreenPool(1_000)
    for kind in _SERVERS:
        listening = eventlet.listen(("127.0.0.1", 0))
        _ring(folder, kind, listening.getsockname()[1])
        _serve(pool, listening, _app(folder, kind, _BACKEND.format(folder=folder, kind=kind)))
    proxy = _app(folder, "proxy", _PROXY.format(folder=folder, secret=secret))
    wsgi.server(eventlet.listen((host, port)), proxy, custom_pool=pool, log_output=False, keepalive=True)


def _ring(folder: Path, kind: str, port: int) -> None:
    path = folder / f"{kind}.ring.gz"
    builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
    device = {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1", "weight": 1.0}
    builder.add_dev(device)
    builder.rebalance()
    builder.get_ring().save(str(path))


def _app(folder: Path, kind: str, text: str) -> object:
    path = folder / f"{kind}-server.conf"
    path.write_text(text)
    return loadapp(str(path), global_conf={"log_name": kind})


def _serve(pool: eventlet.GreenPool, listening: object, app: object) -> None:
    eventlet.spawn_n(wsgi.server, listening, app, custom_pool=pool, log_output=False, keepalive=True)


if __name__ == "__main__":
    main()
