"""By which keys stands of a session are found: of a context, and of one app in it. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

#: the key of a question that says nothing about its context
NO_CONTEXT: Final = "none"


def app_key(context_key: str, app_id: str) -> str:
    """Return by which key it is found that a context is out of one app: 32 hex digits.

    Its own one, so that everything else that is settled about the context stays: the step-up that
    another app asks for, the proof that was given.
    """
    text = f"{context_key}\0{app_id}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
