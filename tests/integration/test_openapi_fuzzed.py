"""schemathesis over the whole OpenAPI document of the running admin API: every check it has, and one of ours."""

import asyncio
import os
import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.api import Api, add_model

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
# Where a body that fits its schema may be refused all the same, and the words of the document that say why.
CROSS_FIELD = {
    "GET /api/v1/models/{model}/performance": "At most 366 days.",
    "POST /api/v1/models/{model}/plan": "A plan has to make sense as a whole",
    "POST /api/v1/models/{model}/promote/{stage}": "A plan has to make sense as a whole",
    "PUT /api/v1/models/{model}/traffic": "Together they are the whole traffic",
    "POST /api/v1/models/{model}/replay": "two versions that answer the same question",
    "POST /api/v1/models/{model}/retrain": "no control characters",
    "POST /api/v1/outcomes": "Exactly one of prediction_id and unit_id",
    "POST /api/v1/policies": "The document has to be a whole policy",
    "POST /api/v1/policies/plan": "The document has to be a whole policy",
}
_ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "429", "5xx"]


def _config(folder: Path) -> Path:
    lines = ["color = false", "generation.database = 'none'", "generation.allow-x00 = false", "warnings.display = []"]
    absent = ["400", "401", "403", "406", "415", "422", "428"]  # 428: RFC 6585, for If-Match
    lines += [f"checks.missing_required_header.expected-statuses = {absent}"]
    for operation in CROSS_FIELD:
        accepted = f"checks.positive_data_acceptance.expected-statuses = {[*_ACCEPTED, '422']}"
        lines += ["[[operations]]", f"include-name = '{operation}'", accepted]
    file = folder / "schemathesis.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


async def _fuzz(api: Api, folder: Path, *options: str) -> int:
    """How many operations a run went through that found nothing; what is needed to get deep is there."""
    await add_model(api.maker, "fraud", 3)
    await add_model(api.maker, "churn", 2)
    secret = await api.key("admin")
    asking = api.client(secret)
    (own,) = (await asking.get("/keys")).json()["items"]
    other = api.client(await api.key("operator", person="somebody-else"))
    why = {"reason": "a test"}
    assert (await other.post("/models/churn/promote/production", json=why)).status_code == 202
    document = folder / "openapi.json"
    async with httpx.AsyncClient(timeout=120) as client:  # making it takes a busy machine longer than anything else
        document.write_bytes((await client.get(f"{api.url}/openapi.json")).content)
    argv = ["--config-file", str(_config(folder)), "run", str(document), "--url", api.url, "--checks", "all"]
    argv += ["-H", f"Authorization: Bearer {secret}", "--continue-on-failure"]
    argv += ["--request-timeout", "90", "--max-response-time", "60", *options]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        *argv,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.support.openapi_hooks",
            "MLCP_TEST_OWN_KEY": own["id"],
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await child.communicate())[0].decode()
    if child.returncode:
        begin = min((at for title in ("= ERRORS", "= FAILURES") if (at := told.find(title)) >= 0), default=-30_000)
        found = "\n".join(line[:600] for line in told[begin:].splitlines())
        pytest.fail(found[:30_000], pytrace=False)
    found = re.search(r"Tested: (\d+)", told)
    assert found, told[-2_000:]
    return int(found[1])


async def test_a_short_look_finds_no_answer_that_breaks_the_document(api: Api, tmp_path: Path) -> None:
    """Two cases of each operation, every check."""
    options = ("--phases", "examples,fuzzing", "--max-examples", "2", "--seed", "7", "--generation-deterministic")
    assert await _fuzz(api, tmp_path, *options) >= 50


@pytest.mark.slow
async def test_a_long_look_finds_no_answer_that_breaks_the_document(api: Api, tmp_path: Path) -> None:
    assert await _fuzz(api, tmp_path, "--max-examples", "100", "--max-time", "200") >= 50


def test_what_may_be_refused_though_it_fits_its_schema_is_documented() -> None:
    from control_plane.api.app import create_app
    from control_plane.settings import ApiSettings

    document = create_app(ApiSettings(postgres_dsn="postgresql+asyncpg://nobody@127.0.0.1:1/none")).openapi()
    for operation, words in CROSS_FIELD.items():
        method, path = operation.split()
        assert words in str(document["paths"][path][method.lower()]), operation
