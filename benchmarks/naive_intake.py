"""The build to be compared with: SET intake as one would write it first.

starlette, jwcrypto's JWT class, and one SQLAlchemy ORM session and one COMMIT per request on
SQLite (WAL, synchronous FULL, as durable as the hub). It does what an intake must: bearer
check, signature, `typ`, `iss`, `aud`, `jti`, dedupe by (iss, jti), COMMIT before 202.

INVARIANT: this file is fixed. It is the denominator of published ratios, so making it faster or
slower changes figures that were measured against it; `tests/benchmarks` pins what it does.
"""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from jwcrypto.common import JWException
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.serving import port_option, serve

BUSY_TIMEOUT_S: Final = 30
TENANT: Final = "default"


class Base(DeclarativeBase):
    """Root of the naive build's mapped classes."""


class Signal(Base):
    """One accepted SET."""

    __tablename__ = "signals"
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "iss", "jti"),
        sa.Index("ix_signals_received_at", "tenant_id", "received_at"),
    )

    signal_id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(sa.String(64))
    iss: Mapped[str] = mapped_column(sa.String(1000))
    jti: Mapped[str] = mapped_column(sa.String(255))
    raw: Mapped[str] = mapped_column(sa.Text)
    claims: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    received_at: Mapped[datetime] = mapped_column(sa.DateTime)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """Who may send, and where it is kept."""

    database: Path
    jwks: str
    issuer: str
    audience: str
    bearer_token: str


class SETRefusedError(Exception):
    """The token is no SET for us; the message says why."""


def create_app(settings: IntakeSettings) -> Starlette:
    """Return the app: `POST /receivers/{provider}/events`. Tables are made on start-up."""
    keys = JWKSet.from_json(settings.jwks)
    engine = _connect(settings.database)
    open_session = async_sessionmaker(engine, expire_on_commit=False)

    async def receive_push(request: Request) -> Response:
        sent = request.headers.get("authorization", "")
        if not secrets.compare_digest(sent, f"Bearer {settings.bearer_token}"):
            return Response(status_code=401)
        raw = (await request.body()).decode("ascii", "replace")
        try:
            claims = _verified_claims(raw, keys, settings)
        except SETRefusedError as refusal:
            return JSONResponse({"err": "invalid_request", "description": str(refusal)}, 400)
        async with open_session() as session:
            session.add(
                Signal(
                    tenant_id=TENANT,
                    iss=claims["iss"],
                    jti=claims["jti"],
                    raw=raw,
                    claims=claims,
                    received_at=datetime.now(UTC).replace(tzinfo=None),  # noqa: TID251 - naive
                )
            )
            try:
                await session.commit()
            except IntegrityError:  # seen before: answered as the first time
                await session.rollback()
        return Response(status_code=202)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    route = Route("/receivers/{provider}/events", receive_push, methods=["POST"])
    app = Starlette(routes=[route], lifespan=lifespan)
    app.state.engine = engine
    return app


def _verified_claims(raw: str, keys: JWKSet, settings: IntakeSettings) -> dict[str, Any]:
    try:
        token = JWT(jwt=raw, key=keys, algs=["RS256"], expected_type="JWS")
    except (JWException, ValueError) as error:
        raise SETRefusedError("signature") from error
    if json.loads(token.header).get("typ") != "secevent+jwt":
        raise SETRefusedError("typ")
    claims: dict[str, Any] = json.loads(token.claims)
    if claims.get("iss") != settings.issuer:
        raise SETRefusedError("iss")
    audience = claims.get("aud")
    if settings.audience not in (audience if isinstance(audience, list) else [audience]):
        raise SETRefusedError("aud")
    if not isinstance(claims.get("jti"), str) or not isinstance(claims.get("events"), dict):
        raise SETRefusedError("jti or events")
    return claims


def _connect(database: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{database}",
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_timeout=BUSY_TIMEOUT_S,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def make_durable(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    return engine


def main() -> None:
    """Serve on loopback until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, parents=[port_option()])
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--jwks-file", type=Path, required=True)
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--audience", required=True)
    parser.add_argument("--bearer-token", required=True)
    options = parser.parse_args()
    settings = IntakeSettings(
        database=options.database,
        jwks=options.jwks_file.read_text(),
        issuer=options.issuer,
        audience=options.audience,
        bearer_token=options.bearer_token,
    )
    serve(create_app(settings), port=options.port)


if __name__ == "__main__":
    main()
