"""`signalhub demo`: play the story, print the timeline, end by itself."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from hub.demo.day import Day
from hub.demo.processes import StepFailed
from hub.demo.story import Moment, Story
from hub.demo.world import World
from runtime.errors import Unavailable

LIMIT_S: Final = 55.0
WHO_CHARACTERS: Final = 12
WHAT_CHARACTERS: Final = 46


def play(*, as_json: bool, keep: bool) -> int:
    """Play the demo; return the exit code: 0 when every step held, 1 with the reason otherwise."""
    return asyncio.run(_play(as_json=as_json, keep=keep))


async def _play(*, as_json: bool, keep: bool) -> int:
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="signalhub-demo-") as name:
        world = World(Path(name))
        story = Story(world, lambda moment: _print(console, moment))
        failure = ""
        try:
            async with asyncio.timeout(LIMIT_S):
                console.print("Starting a hub, an MDM vendor, an IdP, four apps and a webhook …")
                await world.start()
                await Day(world, story.note).play()
                await story.evening()
        except (StepFailed, Unavailable) as step:
            failure = str(step)
        except TimeoutError:
            failure = f"the demo did not end within {LIMIT_S:g} s"
        except ExceptionGroup as group:
            failure = "; ".join(str(error) for error in group.exceptions)
        try:
            _report(console, story, failure, started, as_json=as_json)
            if failure:
                console.print(world.hub.log.read_text()[-4000:] if world.hub.log.exists() else "")
            elif keep:
                await _stay(console, world)
        finally:
            await world.stop()
    return 1 if failure else 0


def _report(console: Console, story: Story, failure: str, started: float, *, as_json: bool) -> None:
    took_s = round(time.monotonic() - started, 1)
    if as_json:
        summary = {
            "ok": not failure,
            "failure": failure or None,
            "took_s": took_s,
            "timeline": [asdict(moment) for moment in story.timeline],
        }
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(summary)).decode() + "\n")
    elif failure:
        console.print(Text(f"FAILED after {took_s} s: {failure}", style="bold red"))
    else:
        console.print(Text(f"Every step held. The whole demo took {took_s} s.", style="bold green"))


def _print(console: Console, moment: Moment) -> None:
    since = "" if moment.since_signal_ms is None else f"+{moment.since_signal_ms:.0f} ms"
    line = Text(f"{moment.hour or since:>10}  ", style="dim")
    line.append(f"{moment.who:<{WHO_CHARACTERS}} ", style="bold")
    line.append(f"{moment.what:<{WHAT_CHARACTERS}}")
    line.append(f" {moment.why}", style="italic")
    console.print(line)


async def _stay(console: Console, world: World) -> None:
    console.print("Everything keeps running; end it with Ctrl-C.")
    console.print(f"  hub       {world.hub.issuer}  (admin token {world.hub.admin_token})")
    for name in ("vendor", "idp", "webhook", *world.apps):
        console.print(f"  {name:<9} {world.peer(name).url}")
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        await asyncio.Event().wait()
