"""From options to the peer they describe."""

from typing import Any

from conformance.peers.app import Application
from conformance.peers.idp import IdentityProvider
from conformance.peers.options import AnyOptions, AppOptions, IdPOptions
from conformance.peers.peer import Peer
from conformance.peers.vendor import Vendor


def build(options: AnyOptions, base_url: str) -> Peer[Any]:
    """Build the peer for its options. Raises OSError when a named file cannot be used."""
    if isinstance(options, IdPOptions):
        return IdentityProvider(options, base_url)
    if isinstance(options, AppOptions):
        return Application(options, base_url)
    return Vendor(options, base_url)
