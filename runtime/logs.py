"""Structured logs: one JSON line per event on standard error, `noun.past_participle`."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import sys
from typing import Any, Final

import msgspec
import structlog

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_REF_KEY: Final = secrets.token_bytes(32)


def configure_logs(level: str, *, process: str) -> None:
    """Set up logging for this process; libraries' warnings come out in the same form."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_render),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def _render(event: dict[str, Any], **_options: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def subject_ref(text: str) -> str:
    """Return a stand-in for a subject in logs: the same within one run, meaningless outside."""
    return hmac.new(_REF_KEY, text.encode(), hashlib.sha256).hexdigest()[:16]
