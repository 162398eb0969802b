"""Questions that were read before: the same bytes from the same caller mean the same.

A browser's requests are alike for hours, and to read and check one costs as much as to find the
answer that is held. Only what is held is answered this way: whatever has to be judged is read anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

from hub.inline.case import Asked
from hub.inline.model import SessionQuestion
from runtime.caller import Caller
from runtime.feed import ConfigFeed

#: questions of one process, about 1 kB each; those heard longest ago go first
HEARD_MAX: Final = 50_000
#: longer bodies are read each time
BODY_BYTES_MAX: Final = 1_024

#: who asks, which session, the configuration that tells whose it is, and the body
Name: TypeAlias = tuple[str, str, str | None, int, str, bytes]


class Heard:
    """What questions mean, by their bytes. feed: versions of the configuration."""

    def __init__(self, feed: ConfigFeed, *, heard_max: int = HEARD_MAX) -> None:
        self._feed = feed
        self._heard_max = heard_max
        self._questions: OrderedDict[Name, tuple[SessionQuestion, Asked]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many questions are remembered."""
        return len(self._questions)

    def name(self, caller: Caller, sid: str, raw: bytes) -> Name:
        """Return what a question is remembered by. Raises nothing."""
        apps = self._feed.version(caller.tenant_id, "apps")
        return caller.tenant_id, caller.client_id, caller.app_id, apps, sid, raw

    def find(self, name: Name) -> tuple[SessionQuestion, Asked] | None:
        """Return the question and what makes it the same as others; None: it has to be read."""
        found = self._questions.get(name)
        if found is not None:
            self._questions.move_to_end(name)
        return found

    def keep(self, name: Name, question: SessionQuestion, asked: Asked) -> None:
        """Remember a question that was read. One with a proof is never the same again."""
        if len(name[-1]) > BODY_BYTES_MAX or question.dbsc_proof is not None:
            return
        self._questions[name] = (question, asked)
        if len(self._questions) > self._heard_max:
            self._questions.popitem(last=False)
