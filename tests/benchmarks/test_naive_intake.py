"""The naive intake is the denominator of published ratios: what it does is pinned here."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jws import JWS

from benchmarks.naive_intake import IntakeSettings, create_app

ISSUER = "https://vendor.example"
AUDIENCE = "https://hub.example"
BEARER = "intake-token"

Sign = Callable[..., str]


@pytest.fixture(scope="module")
def vendor_key() -> JWK:
    return JWK.generate(kty="RSA", size=2048, kid="vendor-1", use="sig", alg="RS256")


@pytest.fixture
def sign(vendor_key: JWK) -> Sign:
    def make(*, key: JWK = vendor_key, typ: str = "secevent+jwt", **changes: object) -> str:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": 1_700_000_000,
            "jti": "jti-1",
            "sub_id": {"format": "email", "email": "ann@example.com"},
            "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {}},
        } | changes
        token = JWS(json.dumps(claims))
        token.add_signature(
            key, protected=json.dumps({"alg": "RS256", "typ": typ, "kid": "vendor-1"})
        )
        compact: str = token.serialize(compact=True)
        return compact

    return make


@pytest.fixture
def settings(tmp_path: Path, vendor_key: JWK) -> IntakeSettings:
    keys = JWKSet()
    keys.add(vendor_key)
    return IntakeSettings(
        database=tmp_path / "naive.db",
        jwks=keys.export(private_keys=False),
        issuer=ISSUER,
        audience=AUDIENCE,
        bearer_token=BEARER,
    )


@pytest.fixture
async def client(settings: IntakeSettings) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=AUDIENCE) as opened,
    ):
        yield opened


async def _push(client: httpx2.AsyncClient, token: str, *, bearer: str = BEARER) -> int:
    answer = await client.post(
        "/receivers/prv_1/events",
        content=token,
        headers={"authorization": f"Bearer {bearer}", "content-type": "application/secevent+jwt"},
    )
    return answer.status_code


def _rows(settings: IntakeSettings) -> list[tuple[str, str, str]]:
    connection = sqlite3.connect(settings.database)
    try:
        return connection.execute("SELECT iss, jti, raw FROM signals").fetchall()
    finally:
        connection.close()


async def test_a_valid_set_is_stored_once_before_202(
    client: httpx2.AsyncClient, settings: IntakeSettings, sign: Sign
) -> None:
    token = sign()
    assert await _push(client, token) == 202
    assert _rows(settings) == [(ISSUER, "jti-1", token)]


async def test_a_repeated_jti_is_answered_as_the_first_time_and_not_stored_again(
    client: httpx2.AsyncClient, settings: IntakeSettings, sign: Sign
) -> None:
    assert [await _push(client, sign()) for _ in range(2)] == [202, 202]
    assert len(_rows(settings)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "https://other.example"},
        {"typ": "JWT"},
        {"jti": None},
        {"events": None},
        {"key": JWK.generate(kty="RSA", size=2048, kid="vendor-1")},
    ],
    ids=["iss", "aud", "typ", "jti", "events", "signature"],
)
async def test_a_token_that_is_no_set_for_us_is_refused_and_not_stored(
    client: httpx2.AsyncClient, settings: IntakeSettings, sign: Sign, changes: dict[str, object]
) -> None:
    assert await _push(client, sign(**changes)) == 400
    assert _rows(settings) == []


async def test_a_caller_without_the_agreed_bearer_token_is_refused(
    client: httpx2.AsyncClient, settings: IntakeSettings, sign: Sign
) -> None:
    assert await _push(client, sign(), bearer="guess") == 401
    assert _rows(settings) == []


async def test_its_commits_are_as_durable_as_the_hubs(settings: IntakeSettings) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app), app.state.engine.connect() as connection:
        assert (await connection.execute(sa.text("PRAGMA journal_mode"))).scalar_one() == "wal"
        full = 2
        assert (await connection.execute(sa.text("PRAGMA synchronous"))).scalar_one() == full
