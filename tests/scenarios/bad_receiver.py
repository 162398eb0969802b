"""Push receivers that answer wrongly, as one process: each path is a receiver with its own fault.

It speaks HTTP by hand, because no server library would send most of this. One ledger for all of
them, so that the order of what reached different receivers is on record.

    POST /r/{name}         a push; the ledger gets an entry before the answer leaves
    PUT  /control/{name}   the body is the answer from now on: see `Answer`
    GET  /ledger           all entries, oldest first, as JSON

Prints its port on the first line; ends at the end of standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

HEAD_BYTES_MAX = 65_536
HUGE_BYTES = 4 * 1024 * 1024
GOOD = {"how": "status", "status": 202}

Answer = Mapping[str, Any]
"""how: status (with `status`, and if given `headers`, `body`), slow (`delay_s`, then 202), never,
garbage, huge, cut, half_closed. only: a `txn` that the fault is for; others are answered 202."""


class Receivers:
    """All receivers of this process."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._ledger: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await _head(reader):
                method, path, headers = head
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if not await self._answer(method, path, headers, body, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the hub gave up, which is what some of this is for
        finally:
            writer.close()

    async def _answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False when the connection is over."""
        _, kind, name = (*path.split("/"), "")[:3]
        if kind == "ledger":
            body = json.dumps(self._ledger).encode()
            return await _send(writer, 200, body, {"content-type": "application/json"})
        if kind == "control":
            self._answers[name] = json.loads(body)
            return await _send(writer, 204)
        claims = _claims(body)
        answer = self._answers.get(name, GOOD)
        if answer.get("only", claims["txn"]) != claims["txn"]:
            answer = GOOD
        if answer["how"] == "slow":
            await asyncio.sleep(answer["delay_s"])
        self._ledger.append(
            {
                "name": name,
                "method": method,
                "jti": claims["jti"],
                "txn": claims["txn"],
                "authorization": headers.get("authorization"),
                "headers": sorted(headers),
                "how": answer["how"],
                "status": answer.get("status", 202 if answer["how"] == "slow" else 0),
            }
        )
        return await _misbehave(answer, reader, writer)


async def _misbehave(
    answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    how = answer["how"]
    if how == "slow":
        return await _send(writer, 202)
    if how == "status":
        body = answer.get("body", "").encode()
        return await _send(writer, answer["status"], body, answer.get("headers", {}))
    if how == "never":
        await reader.read()  # returns when the hub hangs up
    elif how == "garbage":
        writer.write(b"\x16\x03\x01 220 this is not HTTP\r\n\r\n\x00\xff" * 20)
    elif how == "huge":
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % HUGE_BYTES)
        writer.write(b"x" * HUGE_BYTES)
    elif how == "cut":
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000\r\n\r\nhalf")
    elif how == "half_closed":
        writer.write_eof()
        await reader.read()
    else:
        raise ValueError(how)
    await writer.drain()
    return False


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> bool:
    lines = [f"HTTP/1.1 {status} As Ordered", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    await writer.drain()
    return True


async def _head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request, *lines = raw.decode("latin-1").strip().split("\r\n")
    method, path, _ = request.split(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    return method, path, headers


def _claims(raw: bytes) -> dict[str, Any]:
    payload = raw.split(b".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    return {"txn": None, **claims}


async def _main(port: int) -> None:
    server = await asyncio.start_server(
        Receivers().serve, "127.0.0.1", port, limit=HEAD_BYTES_MAX, reuse_address=True
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - for whoever started it
    await server.serve_forever()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_main(parser.parse_args().port))
