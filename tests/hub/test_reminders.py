"""HIGH never ages, but it nags people after 24 and after 72 hours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hub.conftest import Hub
from tests.hub.story import Story, begin

DAY_S = 24 * 3600.0
HOOK = "https://soc.customer.example/hook"


@pytest.fixture
async def story(hub: Hub) -> Story:
    return await begin(hub)


async def set_level(story: Story, level: str) -> None:
    path = f"/api/v1/users/{story.ids['rosa']}/risk"
    assert (await story.admin.put(path, json={"riskLevel": level})).is_success
    await story.hub.settle()


async def told_after(story: Story, seconds: float) -> list[int]:
    """Let time pass; return the hours of what the webhook was told."""
    story.hub.outside.requests.clear()
    story.hub.clock.advance(seconds)
    for _ in range(2):
        await story.hub.remind()
        await story.hub.settle()
    notices: list[dict[str, Any]] = [
        json.loads(request.body) for request in story.hub.outside.requests if request.url == HOOK
    ]
    found = [each["data"] for each in notices if each["type"] == "risk.unresolved"]
    assert all(each["user_id"] == story.ids["rosa"] for each in found)
    return [each["hours"] for each in found]


async def test_row_5_high_nags_after_a_day_and_after_three_and_then_no_more(story: Story) -> None:
    await set_level(story, "HIGH")
    assert await told_after(story, DAY_S - 60) == []
    assert await told_after(story, 60) == [24]
    assert await told_after(story, 2 * DAY_S - 60) == []
    assert await told_after(story, 60) == [72]
    assert await told_after(story, 30 * DAY_S) == []


async def test_a_hub_that_was_away_tells_once(story: Story) -> None:
    await set_level(story, "HIGH")
    assert await told_after(story, 5 * DAY_S) == [72]
    assert await told_after(story, DAY_S) == []


async def test_what_was_ended_in_time_nags_nobody_and_a_new_high_counts_anew(
    story: Story,
) -> None:
    await set_level(story, "HIGH")
    story.hub.clock.advance(DAY_S / 2)
    await set_level(story, "LOW")
    assert await told_after(story, 3 * DAY_S) == []
    await set_level(story, "HIGH")
    assert await told_after(story, DAY_S) == [24]
