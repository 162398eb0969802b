"""The addresses a request came through, and which of them is the client's. Pure.

A chain is written client first, the hop that connects to us last. Only what our own side of it
says can be believed: everything left of the first hop that nobody here trusts may be made up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from risk.networks.model import IP_CHARS_MAX, packed, unpacked

#: proxies that are looked through (threat model §7.1)
PROXIES_MAX: Final = 5
#: hops that are looked at, from our side; what lies before them counts for nothing
HOPS_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain as far as it counts. hops: in normal form, client first, None for what is none.

    is_cut: it was longer.
    """

    hops: tuple[str | None, ...]
    is_cut: bool = False


def read_chain(chain: Sequence[str]) -> Chain:
    """Return the part of a chain that counts, in normal form. Raises nothing."""
    return Chain(
        hops=tuple(map(_normal, chain[-HOPS_MAX:])),
        is_cut=len(chain) > HOPS_MAX,
    )


def _normal(hop: str) -> str | None:
    """Return a hop's address, which may come with a port or in brackets; None when it is none."""
    text = hop.strip()[: IP_CHARS_MAX + 8]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    raw = packed(text)
    return unpacked(raw) if raw is not None else None


def client_at(hops: Sequence[str | None], is_proxy: Callable[[str], bool]) -> int | None:
    """Return the place of the client's hop: the nearest to us that is no trusted proxy.

    At most five proxies are looked through. A hop that is no address hides what lies before it:
    then the hop next to it, on our side, is the client. None: no hop is an address.
    """
    found: int | None = None
    for at in range(len(hops) - 1, -1, -1):
        hop = hops[at]
        if hop is None:
            break
        found = at
        if not is_proxy(hop) or len(hops) - at > PROXIES_MAX:
            break
    return found
