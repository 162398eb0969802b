"""Debian's Chromium without a window, driven over the DevTools protocol by a few commands."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.system.gateways import program

LIMIT_S = 60.0
MESSAGE_BYTES_MAX = 32 * 1024 * 1024
_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")


@dataclass
class Browser:
    """A running Chromium. Answers and events come over one socket."""

    socket: aiohttp.ClientWebSocketResponse
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)

    async def listen(self) -> None:
        """Hand answers to who waits for them, until the socket closes."""
        async for message in self.socket:
            said = json.loads(message.data)
            future = self.waiting.pop(said.get("id", 0), None)
            if future is not None and not future.done():
                future.set_result(said)

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Give one command; return its result. Fails when the browser refuses it."""
        number = next(self.numbers)
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters}
        await self.socket.send_json({**command, **({"sessionId": session} if session else {})})
        said = await asyncio.wait_for(future, LIMIT_S)
        assert "error" not in said, f"{method}: {said}"
        result: dict[str, Any] = said["result"]
        return result

    async def new_person(self) -> Tab:
        """Return a tab with a cookie jar of its own: another machine."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        tab = Tab(browser=self, session=attached["sessionId"], context=context)
        await tab.call("Page.enable")
        return tab


@dataclass
class Tab:
    """One tab."""

    browser: Browser
    session: str
    context: str

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give one command to this tab."""
        return await self.browser.call(method, self.session, **parameters)

    async def run(self, script: str) -> Any:
        """Run JavaScript in the page; return its value, after its promise if it is one."""
        done = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return done["result"].get("value")

    async def open(self, url: str) -> None:
        """Go to an address, and wherever it leads."""
        await self.run("window.isOld = true")
        await self.call("Page.navigate", url=url)
        await self._until_loaded()

    async def click(self, selector: str) -> None:
        """Click on something that leads to another page."""
        await self.run("window.isOld = true")
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")
        await self._until_loaded()

    async def _until_loaded(self) -> None:
        """Wait for the next page to be there."""
        ready = "!window.isOld && document.readyState === 'complete'"
        async with asyncio.timeout(LIMIT_S):
            while not await self.run(ready):  # noqa: ASYNC110 - asking is the point
                await asyncio.sleep(0)

    async def url(self) -> str:
        """Return where the tab is."""
        return str(await self.run("location.href"))

    async def text(self) -> str:
        """Return what the page says."""
        return str(await self.run("document.body.innerText"))

    async def statuses(self, path: str, times: int = 1) -> list[int]:
        """Fetch a path as a program of the page would, several times at once."""
        found: list[int] = await self.run(
            f"Promise.all(Array.from({{length: {times}}}, () => fetch({json.dumps(path)}, "
            "{redirect: 'manual', headers: {accept: 'application/json'}}).then(r => r.status)))"
        )
        return found

    async def cookie(self, name: str) -> str | None:
        """Return the value of a cookie of this person."""
        jar = await self.browser.call("Storage.getCookies", browserContextId=self.context)
        return next((each["value"] for each in jar["cookies"] if each["name"] == name), None)


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """Run a browser until the block is left."""
    command = [
        program("chromium", "chromium"),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            while not (found := _LISTENING.search((await process.stderr.readline()).decode())):
                assert not process.stderr.at_eof(), "the browser did not start"
        # It goes on talking, and would wait for somebody to read that.
        reading = asyncio.create_task(process.stderr.read())
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(found[1], max_msg_size=MESSAGE_BYTES_MAX) as socket,
        ):
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            yield browser
            listening.cancel()
    finally:
        process.terminate()
        await process.wait()
    await reading
