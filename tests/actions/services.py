"""A small real HTTP server that plays an IdP's SCIM and logout endpoints, apps and a webhook.

Its ledger, not the hub, is the judge of what had an effect.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

GROUP_PATH = re.compile(r"/scim/v2/Groups/([^/?]+)")
MEMBER_FILTER = re.compile(r'members\.value eq "([^"]+)"')
MEMBER_PATH = re.compile(r'members\[value eq "([^"]+)"\]')
USER_FILTER = re.compile(r'(\S+) eq "([^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class Services:
    """Everything outside the hub. answers: statuses to give first, by path prefix."""

    base_url: str = ""
    users: dict[str, str] = field(default_factory=lambda: {"rosa.lind@green.example": "2a91"})
    members: set[str] = field(default_factory=set)
    tells_groups: bool = True
    calls: list[Call] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    loses_answers_of: set[str] = field(default_factory=set)

    def paths(self, part: str = "") -> list[str]:
        """The paths that were called, in order."""
        return [call.path for call in self.calls if part in call.path]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = Call(
            method=request.method,
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
        )
        self.calls.append(call)
        for prefix, statuses in self.answers.items():
            if request.path.startswith(prefix) and statuses:
                return web.Response(status=statuses.pop(0))
        response = self._scim(request, call) if "/scim/" in request.path else self._plain(call)
        if request.path in self.loses_answers_of:
            self.loses_answers_of.discard(request.path)
            assert request.transport is not None
            request.transport.close()
        return response

    def _plain(self, call: Call) -> web.Response:
        self.effects.append(call.path)
        return web.Response(status=200 if call.path.endswith("/bcl") else 204)

    def _scim(self, request: web.Request, call: Call) -> web.Response:
        if request.headers.get("authorization") != "Bearer scim-token":
            return web.Response(status=401)
        if call.method == "PATCH":
            return self._patch(call)
        if request.path.endswith("/Groups"):
            wanted = MEMBER_FILTER.search(request.query["filter"])
            assert wanted is not None
            found = [{"id": "grp-quarantine"}] if wanted[1] in self.members else []
            return self._list(found)
        if request.path.endswith("/Users"):
            match = USER_FILTER.fullmatch(request.query["filter"])
            assert match is not None
            return self._list([self._user(self.users[match[2]])] if match[2] in self.users else [])
        return web.json_response(self._user(request.path.rpartition("/")[2]))

    def _patch(self, call: Call) -> web.Response:
        (operation,) = call.json["Operations"]
        if operation["op"] == "add":
            (user,) = [entry["value"] for entry in operation["value"]]
            if user not in self.members:
                self.effects.append(f"added {user}")
            self.members.add(user)
            return web.Response(status=204)
        named = MEMBER_PATH.fullmatch(operation["path"])
        assert named is not None, "a removal that names nobody"
        if named[1] not in self.members:
            return web.json_response({"status": "400", "scimType": "noTarget"}, status=400)
        self.members.discard(named[1])
        self.effects.append(f"removed {named[1]}")
        return web.Response(status=204)

    def _user(self, user_id: str) -> dict[str, Any]:
        user: dict[str, Any] = {"id": user_id}
        if self.tells_groups:
            groups = ["grp-quarantine"] if user_id in self.members else []
            user["groups"] = [{"value": group} for group in groups]
        return user

    def _list(self, resources: list[dict[str, Any]]) -> web.Response:
        return web.json_response({"totalResults": len(resources), "Resources": resources})


@asynccontextmanager
async def serving() -> AsyncIterator[Services]:
    """Serve on a free loopback port."""
    services = Services()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", services.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    services.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield services
    finally:
        await runner.cleanup()
