"""Where outbound requests may go: rules of the operator, addresses checked before connecting.

    url ─▶ check_url ─▶ Target ─▶ addresses (one lookup, every answer checked) ─▶ connect to those

Source: design §10, requirement SSF-DEL-6.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from ssrfguard import Policy, Resolver, SSRFGuardError, Target, resolve

from runtime.errors import AddressBlocked, ConnectFailed, TimedOut

LOOKUP_TIMEOUT_S: Final = 5.0
#: names looked up at the same time; a stalled name server holds one of them per attempt
LOOKUPS_MAX: Final = 32
ALL_PORTS: Final = frozenset(range(1, 65_536))


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """Who may be called. `allow`: CIDRs or host names past the private-address block."""

    dev_insecure: bool = False
    allow: tuple[str, ...] = ()
    extra_ca: str | None = None

    def policy(self) -> Policy:
        """Return the guard's policy. Raises ValueError on an entry that is neither."""
        entries = [entry for entry in self.allow if _is_network(entry)]
        if self.dev_insecure:
            entries += ["127.0.0.0/8", "::1/128"]
        return Policy(
            allowed_schemes=frozenset({"https", "http"} if self.dev_insecure else {"https"}),
            allowed_networks=_networks(*entries),
            allowed_ports=ALL_PORTS,
        )

    def trusted_hosts(self) -> frozenset[str]:
        """Return the host names that the operator allowed whatever they resolve to."""
        return frozenset(entry.lower() for entry in self.allow if not _is_network(entry))


class AddressGuard:
    """Decides where a URL may connect; one name lookup, every answer checked."""

    def __init__(self, rules: EgressRules, *, lookup: Resolver = socket.getaddrinfo) -> None:
        self._policy = rules.policy()
        self._trusted_hosts = rules.trusted_hosts()
        self._lookup = lookup
        # Threads of its own: a lookup cannot be cancelled, and must not hold up other work.
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="lookup")

    def check_url(self, url: str) -> Target:
        """Return the origin of `url`; raises AddressBlocked when the rules refuse it."""
        try:
            return self._policy.check_url(url)
        except SSRFGuardError as error:
            raise AddressBlocked(_without_url(error)) from error

    def check_agreement(self, target: Target, host: str) -> None:
        """Refuse a URL in which the HTTP client sees another host than the guard did.

        The two follow different editions of IDNA: one may take digits of a newer Unicode for a
        name where the other reads an address, which would then never be checked.
        Raises AddressBlocked.
        """
        literal = target.address
        if not (_same_address(host, literal) if literal else host == target.host):
            raise AddressBlocked("The host is ambiguous: write it in its ASCII form.")

    async def addresses(self, target: Target) -> list[str]:
        """Return the checked addresses of `target`, in order of preference.

        Raises AddressBlocked, ConnectFailed (no such name), TimedOut.
        """
        policy = self._trusting_policy() if target.host in self._trusted_hosts else self._policy
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                found = await asyncio.get_running_loop().run_in_executor(
                    self._threads, partial(resolve, target, policy=policy, resolver=self._lookup)
                )
        except SSRFGuardError as error:
            raise AddressBlocked(_without_url(error)) from error
        except TimeoutError as error:
            raise TimedOut("The name did not resolve in time.") from error
        except (OSError, ValueError) as error:
            raise ConnectFailed("The name does not resolve.") from error
        return [str(address.ip) for address in found]

    def close(self) -> None:
        """Let the lookup threads end; raises nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _trusting_policy(self) -> Policy:
        everything = _networks("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
        return Policy(
            allowed_schemes=self._policy.allowed_schemes,
            allowed_networks=everything,
            allowed_ports=ALL_PORTS,
        )


def _same_address(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(host) == address
    except ValueError:
        return False


def _networks(*entries: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def _is_network(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return True


def _without_url(error: SSRFGuardError) -> str:
    return str(getattr(error, "reason", error))
