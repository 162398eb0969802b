"""From untrusted members of a question to bounded texts. Pure.

What a client cannot help (a long user agent, an odd header) is cut; what a caller got wrong (types,
sizes of what it builds itself) is refused with a pointer, so that it is mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from risk.contexts.agents import USER_AGENT_CHARS_MAX, parse_agent
from risk.contexts.model import Context
from runtime.errors import Invalid

#: hops nearest to us that are looked at; whoever is further away may have written what they like
HOPS_MAX: Final = 32
#: hops a caller may send at all
HOPS_SENT_MAX: Final = 1_000
HOP_CHARS_MAX: Final = 64
JA4_CHARS_MAX: Final = 100
LANGUAGE_CHARS_MAX: Final = 200
DEVICE_ID_CHARS_MAX: Final = 200
TOKEN_HASH_CHARS_MAX: Final = 128
APP_CHARS_MAX: Final = 200
METHOD_CHARS_MAX: Final = 16
PATH_CHARS_MAX: Final = 200
SIGNALS_MAX: Final = 32
SIGNAL_NAME_CHARS_MAX: Final = 80
SIGNAL_VALUE_CHARS_MAX: Final = 200
#: a caller whose clock is further off is not believed about the time
CLOCK_SKEW: Final = timedelta(minutes=5)


def bounded_chain(chain: Sequence[str]) -> tuple[str, ...]:
    """Return the hops that are looked at, client first: the last 32. Raises Invalid.

    Of longer chains the far end is dropped: it is the end that a client can make up.
    """
    if len(chain) > HOPS_SENT_MAX:
        rule = f"at most {HOPS_SENT_MAX} addresses"
        raise Invalid(f"Not valid: /ip_chain: {rule}.", pointers=(("/ip_chain", rule),))
    return tuple(hop.strip()[:HOP_CHARS_MAX] for hop in chain[-HOPS_MAX:])


def believed_at(said: datetime | None, now: datetime) -> datetime:
    """Return when it was asked: the caller's word, unless its clock is wrong. Raises nothing."""
    if said is None or abs(said - now) > CLOCK_SKEW:
        return now
    return min(said, now)


def parse_signals(said: object, at: str = "/device/signals") -> dict[str, str]:
    """Read the posture of a device: names to texts, numbers or booleans. Raises Invalid.

    Values become texts (`true`, `false`, `null` is left out); names keep their case.
    """
    if said is None:
        return {}
    rule = f"an object of at most {SIGNALS_MAX} texts, numbers or booleans"
    if not isinstance(said, Mapping) or len(said) > SIGNALS_MAX:
        raise _invalid(at, rule)
    if not all(isinstance(name, str) and _is_text(name, SIGNAL_NAME_CHARS_MAX) for name in said):
        raise _invalid(at, f"names of at most {SIGNAL_NAME_CHARS_MAX} characters")
    return {
        name: _signal(f"{at}/{name}", value) for name, value in said.items() if value is not None
    }


def bounded(context: Context) -> Context:
    """Return the context with its texts cut to size and its user agent parsed. Raises nothing."""
    agent = parse_agent(context.user_agent)
    return replace(
        context,
        user_agent=context.user_agent[:USER_AGENT_CHARS_MAX],
        ua_family=agent.family,
        ua_major=agent.major,
        os_family=agent.os_family,
        ja4=context.ja4[:JA4_CHARS_MAX],
        accept_language=context.accept_language[:LANGUAGE_CHARS_MAX],
        device_token_hash=context.device_token_hash[:TOKEN_HASH_CHARS_MAX],
        device_id=context.device_id[:DEVICE_ID_CHARS_MAX],
        app_id=context.app_id[:APP_CHARS_MAX],
        method=context.method[:METHOD_CHARS_MAX],
        path_class=context.path_class[:PATH_CHARS_MAX],
    )


def _signal(at: str, value: object) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str | int | float):
        text = str(value)
    else:
        raise _invalid(at, "a text, a number or a boolean")
    if not _is_text(text, SIGNAL_VALUE_CHARS_MAX):
        rule = f"at most {SIGNAL_VALUE_CHARS_MAX} printable characters"
        raise _invalid(at, rule)
    return text


def _is_text(text: str, chars_max: int) -> bool:
    return 0 < len(text) <= chars_max and text.isprintable()


def _invalid(at: str, rule: str) -> Invalid:
    return Invalid(f"Not valid: {at}: {rule}.", pointers=((at, rule),))
