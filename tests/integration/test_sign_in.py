"""Tokens of a real identity provider on loopback, beside keys: what is taken, what is refused, who somebody is."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.oidc import Issuer, Refused, Trusted
from control_plane.domain.governance import Role
from control_plane.domain.governance.sign_in import Membership
from control_plane.errors import Unavailable
from control_plane.settings import ApiSettings
from tests.integration.test_api_access import ANY, FILLED, TABLE
from tests.support.api import Api, add_model, everything, serving
from tests.support.identity import AUDIENCE, Provider, provider

pytestmark = pytest.mark.integration
WHY = {"reason": "a test"}
ROLES = {
    "releases": Membership(Role.OPERATOR, ("fraud*",)),
    "risk": Membership(Role.APPROVER),
    "pipelines": Membership(Role.OPERATOR, automated=True),
    **{f"all-{role}": Membership(role) for role in Role},
}


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
async def api(dsn: str, maker: async_sessionmaker[AsyncSession], home: Path, idp: Provider) -> AsyncIterator[Api]:
    settings = ApiSettings(
        postgres_dsn=SecretStr(dsn),
        home=home,
        policy="prod",
        oidc_issuer=idp.url,
        oidc_audience=AUDIENCE,
        oidc_roles=ROLES,
        failed_sign_ins_per_minute=30,
    )
    async with serving(settings) as url:
        made = Api(url, maker)
        yield made
        await made.close()


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _by_hand(idp: Provider, header: dict[str, Any], secret: bytes | None) -> str:
    """A token as no library makes it: of no algorithm, or signed with the public key as if it were a shared secret."""
    claims = idp.token().split(".")[1]
    head = _b64(json.dumps(header).encode())
    mac = b"" if secret is None else hmac.new(secret, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"{head}.{claims}.{_b64(mac)}"


async def test_a_token_carries_what_its_group_is_mapped_to_and_a_key_goes_on_working(api: Api, idp: Provider) -> None:
    await add_model(api.maker, "fraud")
    await add_model(api.maker, "churn")
    ann = api.client(idp.token())
    assert [m["name"] for m in (await ann.get("/models")).json()["items"]] == ["fraud"]
    assert (await ann.get("/models/churn")).status_code == 403
    assert (await ann.get("/audit")).status_code == 403  # an operator's role
    idp.add("ec", "EC")
    assert (await api.client(idp.token("ec")).get("/models")).status_code in {200, 401}  # asked for too soon after
    assert (await (await api.as_("viewer")).get("/models")).status_code == 200
    shown = (await (await api.as_("admin")).get("/principals")).json()["items"]
    assert [p["person"] for p in shown].count("ann@bank.example") == 1


async def test_whatever_is_wrong_with_a_token_it_is_401_and_changes_nothing(api: Api, idp: Provider) -> None:
    await add_model(api.maker)
    public = idp.keys["one"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good, now = idp.token(), 1_700_000_000
    forged = {
        "expired": idp.token(exp=now),
        "not yet": idp.token(nbf=now + 10**9),
        "another audience": idp.token(aud="payroll"),
        "another issuer": idp.token(iss="https://elsewhere.example"),
        "no audience": idp.token(without="aud"),
        "no end": idp.token(without="exp"),
        "no subject": idp.token(without="sub"),
        "no person": idp.token(without="email"),
        "an address nobody verified": idp.token(email_verified=False),
        "a person that is none": idp.token(email=["ann@bank.example"]),
        "of no algorithm": _by_hand(idp, {"alg": "none", "kid": "one"}, None),
        "of None": _by_hand(idp, {"alg": "None", "typ": "JWT"}, None),
        "signed with the public key": _by_hand(idp, {"alg": "HS256", "kid": "one"}, public),
        "of an algorithm that is not allowed": idp.token(algorithm="RS512"),
        "of a key id nobody knows": idp.token().replace(good.split(".")[0], _b64(b'{"alg":"RS256","kid":"x"}')),
        "changed": good[:-6] + ("AAAAAA" if not good.endswith("AAAAAA") else "BBBBBB"),
        "empty": "..",
        "no token": "a.b.c",
        "endless": "a" * 20_000 + ".b.c",
    }
    before = await everything(api.maker)
    for what, token in forged.items():
        answer = await api.client(token).get("/models")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), what
        assert answer.json()["type"].rsplit("/")[-1] == "unauthenticated", what
        assert "kind" not in answer.json(), what
    assert await everything(api.maker) == before
    assert (await api.client(good).get("/models")).status_code == 200


async def test_a_bearer_whose_groups_mean_nothing_here_is_told_so(api: Api, idp: Provider) -> None:
    for groups in ([], ["marketing"], "marketing", 7, None):
        answer = await api.client(idp.token(groups=groups)).get("/models")
        assert answer.status_code == 403
        assert "groups" in answer.json()["detail"]


async def test_a_token_may_do_exactly_what_the_table_says_of_its_role(api: Api, idp: Provider) -> None:
    await add_model(api.maker)
    wrong: list[str] = []
    for role in Role:
        client = api.client(idp.token(groups=[f"all-{role}"], sub=role, email=f"{role}@bank.example"))
        for line, allowed in TABLE.items():
            method, path = line.split()
            answer = await client.request(method, path.format_map(FILLED), json={} if method != "GET" else None)
            if (role in allowed.split()) != (answer.status_code not in {401, 403}) or answer.status_code >= 500:
                wrong.append(f"{role} {line}: {answer.status_code}")
    late = api.client(idp.token(exp=1_700_000_000, groups=["all-admin"]))
    for line in [line for line in TABLE if TABLE[line] != ANY][:20]:  # failures are limited
        method, path = line.split()
        assert (await late.request(method, path.format_map(FILLED))).status_code == 401, line
    assert not wrong


async def test_one_person_is_one_person_by_key_and_by_token(api: Api, idp: Provider) -> None:
    await add_model(api.maker)
    key = api.client(await api.key("operator", person="Ann@Bank.example "))  # as somebody typed it
    asked = await key.post("/models/fraud/promote/production", json={"version": "1", **WHY})
    assert asked.status_code == 202, asked.text
    path = f"/approvals/{asked.json()['id']}"
    etag = {"If-Match": (await key.get(path)).headers["etag"]}
    herself = api.client(idp.token(groups=["risk"]))
    answer = await herself.post(f"{path}/approve", json=WHY, headers=etag)
    assert answer.status_code == 403, answer.text
    other_sub = api.client(idp.token(groups=["risk"], sub="u-2", email="ANN@bank.example"))
    assert (await other_sub.post(f"{path}/approve", json=WHY, headers=etag)).status_code == 403
    program = api.client(idp.token(groups=["pipelines"], email="ben@bank.example"))
    assert (await program.post(f"{path}/approve", json=WHY, headers=etag)).status_code == 403
    ben = api.client(idp.token(groups=["risk"], sub="u-3", email="ben@bank.example"))
    done = await ben.post(f"{path}/approve", json=WHY, headers=etag)
    assert (done.status_code, done.json()["state"]) == (200, "approved"), done.text
    rows = (await ben.get("/audit")).json()["items"]
    assert any(row["actor"]["key"] == "oidc:u-3" and row["actor"]["person"] == "ben@bank.example" for row in rows)


async def test_failures_are_limited_for_an_address_but_not_for_what_was_right_before(api: Api, idp: Provider) -> None:
    good, key = idp.token(), await api.key("viewer")
    known, holder = api.client(good), api.client(key)
    assert (await known.get("/models")).status_code == (await holder.get("/models")).status_code == 200
    wrong = api.client("mlcp_wrong")
    for _ in range(200):  # 30 at once, one more every other second
        answer = await wrong.get("/models")
        if answer.status_code != 401:
            break
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await known.get("/models")).status_code == (await holder.get("/models")).status_code == 200


def _issuer(idp: Provider, clock: Clock, **more: Any) -> Issuer:
    return Issuer(Trusted(idp.url, AUDIENCE, **more), clock=clock)


async def test_a_new_key_of_the_provider_is_fetched_once_and_made_up_ones_cost_it_nothing(idp: Provider) -> None:
    clock = Clock()
    issuer = _issuer(idp, clock, jwks_url=f"{idp.url}/keys")
    await issuer.claims(idp.token())
    assert idp.asked == ["/keys"]
    idp.add("two", "EC")
    clock.now = 11
    assert (await issuer.claims(idp.token("two")))["email"] == "ann@bank.example"
    assert len(idp.asked) == 2
    strange = idp.token().replace(idp.token().split(".")[0], _b64(b'{"alg":"RS256","kid":"x"}'))
    for clock.now in (22.0, 22.1, 25.0, 31.9):
        with pytest.raises(Refused):
            await issuer.claims(strange)
    assert len(idp.asked) == 3
    del idp.keys["one"]
    late = Provider(idp.url, {"one": idp.keys["two"]}).token("one", algorithm="ES256")
    clock.now = 4_000
    await issuer.claims(idp.token("two"))
    with pytest.raises(Refused):  # a key that was taken back signs nothing
        await issuer.claims(late)
    await issuer.close()


async def test_while_the_provider_is_down_known_keys_go_on_for_a_day(idp: Provider) -> None:
    clock = Clock()
    issuer = _issuer(idp, clock)
    token = idp.token()
    idp.up = False
    with pytest.raises(Unavailable):
        await issuer.claims(token)
    idp.up, clock.now = True, 11
    await issuer.claims(token)
    idp.up = False
    for clock.now in (5_000.0, 40_000.0, 86_000.0):
        assert (await issuer.claims(token))["sub"] == "u-1"
    clock.now = 90_000
    with pytest.raises(Unavailable):
        await issuer.claims(token)
    await issuer.close()


async def test_a_discovery_document_of_somebody_else_is_not_believed(idp: Provider) -> None:
    idp.says_it_is = "https://elsewhere.example"
    issuer = _issuer(idp, Clock())
    with pytest.raises(Unavailable):
        await issuer.claims(idp.token())
    assert "/keys" not in idp.asked
    await issuer.close()


async def test_two_families_of_keys_are_never_taken_for_each_other(idp: Provider) -> None:
    idp.add("two", "EC")
    issuer = _issuer(idp, Clock())
    crossed = jwt_header(idp.token("two"), {"alg": "RS256", "kid": "two"})
    with pytest.raises(Refused):
        await issuer.claims(crossed)
    await issuer.close()


def jwt_header(token: str, header: dict[str, Any]) -> str:
    return ".".join([_b64(json.dumps(header).encode()), *token.split(".")[1:]])


def test_a_provider_needs_an_audience_roles_and_https() -> None:
    dsn = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    whole: dict[str, Any] = {"oidc_issuer": "https://id.example", "oidc_audience": "mlcp", "oidc_roles": ROLES}
    assert ApiSettings(postgres_dsn=dsn, **whole).oidc_roles["risk"].role is Role.APPROVER
    for changed in (
        {"oidc_audience": None},
        {"oidc_roles": {}},
        {"oidc_issuer": "http://id.example"},
        {"oidc_jwks_url": "http://id.example/keys"},
        {"oidc_algorithms": ("HS256",)},
        {"oidc_algorithms": ("none",)},
    ):
        with pytest.raises(ValidationError):
            ApiSettings(postgres_dsn=dsn, **{**whole, **changed})


async def test_pages_are_signed_in_to_with_a_key(api: Api, idp: Provider) -> None:
    async with httpx.AsyncClient(base_url=api.url) as browser:
        answer = await browser.post("/pages/sign-in", data={"key": idp.token()})
        assert answer.status_code == 403
        assert not browser.cookies
