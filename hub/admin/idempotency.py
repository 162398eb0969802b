"""`Idempotency-Key` on POST: a repeat gets the first answer and does nothing again.

The answer is kept for a day, sealed, because it may hold a secret that is shown once. A refused
request changed nothing and is not kept: its repeat is simply tried again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import timedelta
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from hub import store
from hub.admin.context import Admin
from hub.store import KeptAnswer
from runtime.errors import Conflict, Invalid

HEADER: Final = "idempotency-key"
KEPT_FOR: Final = timedelta(hours=24)
_KEY: Final = re.compile(r"[!-~]{1,255}")


class _Answer(msgspec.Struct, frozen=True):
    """An answer as it is kept; body in base64."""

    status: int
    headers: dict[str, str]
    body: str


async def request_key(request: Request) -> tuple[str, str] | None:
    """Return (key, fingerprint of the request), None without the header. Raises Invalid."""
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise Invalid("Idempotency-Key is 1 to 255 visible ASCII characters, once.")
    said = (request.method.encode(), request.scope["path"].encode(), await request.body())
    return values[0], hashlib.sha256(b"\0".join(said)).hexdigest()


async def find_answer(
    connection: AsyncConnection, admin: Admin, key: tuple[str, str]
) -> Response | None:
    """Return the answer to the same request a moment ago, None when there was none.

    Raises Conflict when the key came with another request.
    """
    kept = await store.find_answer(
        connection,
        admin.tenant_id,
        client_id=admin.caller.client_id,
        key=key[0],
        since=admin.now - KEPT_FOR,
    )
    if kept is None:
        return None
    if kept.fingerprint != key[1]:
        raise Conflict("This Idempotency-Key came with another request before.")
    answer = msgspec.json.decode(admin.node.box.open(kept.answer_sealed), type=_Answer)
    return Response(base64.b64decode(answer.body), answer.status, headers=answer.headers)


async def keep_answer(
    connection: AsyncConnection, admin: Admin, key: tuple[str, str], response: Response
) -> None:
    """Keep the answer for a day, and forget this tenant's older ones."""
    answer = _Answer(
        status=response.status_code,
        headers=dict(response.headers),
        body=base64.b64encode(response.body).decode(),
    )
    now = admin.now
    await store.forget_answers(connection, admin.tenant_id, before=now - KEPT_FOR)
    await store.keep_answer(
        connection,
        KeptAnswer(
            tenant_id=admin.tenant_id,
            client_id=admin.caller.client_id,
            key=key[0],
            fingerprint=key[1],
            answer_sealed=admin.node.box.seal(msgspec.json.encode(answer).decode()),
            created_at=now,
        ),
    )
