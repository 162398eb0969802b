"""Feed files made up for tests, of documentation ranges, and a small writer of MMDB."""

from __future__ import annotations

import gzip
import ipaddress
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_TYPES: Final = {
    "string": 2,
    "double": 3,
    "uint16": 5,
    "uint32": 6,
    "map": 7,
    "uint64": 9,
    "array": 11,
}
_BOOLEAN: Final = 14

CITY: Final[dict[str, dict[str, Any]]] = {
    "192.0.2.0/24": {
        "country": {"iso_code": "DE"},
        "subdivisions": [{"iso_code": "BE"}],
        "city": {"names": {"en": "Berlin"}},
        "location": {"latitude": 52.5, "longitude": 13.4, "accuracy_radius": 20},
    },
    "198.51.100.0/24": {
        "country": {"iso_code": "US"},
        "subdivisions": [{"iso_code": "CA"}],
        "location": {"latitude": 37.7, "longitude": -122.4},
    },
    "2001:db8::/32": {"country": {"iso_code": "FR"}},
}
ANONYMOUS: Final[dict[str, dict[str, Any]]] = {
    "198.51.100.128/25": {
        "is_anonymous": True,
        "is_anonymous_vpn": True,
        "provider_name": "NordVPN",
    },
    "203.0.113.7/32": {"is_anonymous": True, "is_tor_exit_node": True},
    "2001:db8:1::/48": {"is_hosting_provider": True},
}
IPINFO: Final = """network,country,country_code,region,city,asn,as_name,hosting,vpn,service
192.0.2.0/25,Germany,DE,Berlin,Berlin,AS64500,Example Net,,,
192.0.2.128/25,Germany,DE,Berlin,Berlin,AS64501,Example Hosting,true,,
198.51.100.0/24,United States,US,California,San Francisco,AS64502,Example Inc,,true,Mullvad
2001:db8::/33,France,FR,Ile-de-France,Paris,AS64503,Exemple SA,,,
"""
SPUR: Final[tuple[dict[str, Any], ...]] = (
    {
        "ip": "203.0.113.9",
        "as": {"number": 64504, "organization": "Example Mobile"},
        "client": {"proxies": ["OXYLABS_PROXY"], "types": ["MOBILE"]},
        "location": {"country": "GB", "city": "London", "state": "ENG"},
        "risks": ["CALLBACK_PROXY"],
    },
    {
        "ip": "2001:db8::9",
        "as": {"number": 64503, "organization": "Exemple"},
        "tunnels": [{"operator": "PROTON_VPN", "type": "VPN", "anonymous": True}],
    },
)
RELAY: Final = """172.224.226.0/31,GB,GB-EN,London,
2001:db8:2::/64,DE,DE-HH,Hamburg,
"""
TOR: Final = """ExitNode 0000000000000000000000000000000000000000
Published 2026-01-01 00:00:00
ExitAddress 203.0.113.8 2026-01-01 00:00:00
# a comment
203.0.113.10
"""
IP2PROXY: Final = (
    f'"{int(ipaddress.ip_address("203.0.113.64"))}","{int(ipaddress.ip_address("203.0.113.95"))}",'
    '"VPN","NL","Netherlands","Noord-Holland","Amsterdam","Example","example.net","DCH","64505",'
    '"Example Servers","3","-","ExpressVPN","0"\n'
    f'"{int(ipaddress.ip_address("::ffff:203.0.113.96"))}",'
    f'"{int(ipaddress.ip_address("::ffff:203.0.113.96"))}",'
    '"RES","NL","Netherlands","-","-","-","-","MOB","-","-","40","-","-","0"\n'
    f'"{int(ipaddress.ip_address("2001:db8:3::"))}","{int(ipaddress.ip_address("2001:db8:3::f"))}",'
    '"TOR","-","-","-","-","-","-","-","-","-","-","-","-","-"\n'
)


def write_text(path: Path, text: str) -> Path:
    """Write a text feed, packed when its name says so."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def write_lines(path: Path, documents: Sequence[Mapping[str, Any]]) -> Path:
    """Write a feed of JSON lines."""
    return write_text(path, "".join(json.dumps(each) + "\n" for each in documents))


def write_mmdb(
    path: Path, networks: Mapping[str, Mapping[str, Any]], *, built_at: int, size: int = 28
) -> Path:
    """Write a MaxMind DB (format 2.0, IPv6 tree) with these records. size: bits of a pointer."""
    nodes: list[list[Any]] = [[None, None]]
    data = bytearray()
    for text, document in networks.items():
        network = ipaddress.ip_network(text)
        value = ("data", len(data))
        data += _encoded(document)
        width = 128 - network.max_prefixlen + network.prefixlen
        bits = f"{int(network.network_address):0128b}"[:width]
        _place(nodes, bits, value)
    tree = bytearray()
    for node in nodes:
        left, right = (_number(child, len(nodes)) for child in node)
        if size == 28:
            high = (left >> 24) << 4 | right >> 24
            tree += (left & 0xFFFFFF).to_bytes(3) + bytes([high]) + (right & 0xFFFFFF).to_bytes(3)
        else:
            tree += left.to_bytes(size // 8) + right.to_bytes(size // 8)
    metadata = _encoded(
        {
            "node_count": len(nodes),
            "record_size": ("uint16", size),
            "ip_version": ("uint16", 6),
            "database_type": "Test",
            "languages": ["en"],
            "binary_format_major_version": ("uint16", 2),
            "binary_format_minor_version": ("uint16", 0),
            "build_epoch": ("uint64", built_at),
            "description": {"en": "made up"},
        }
    )
    path.write_bytes(bytes(tree + bytes(16) + data) + b"\xab\xcd\xefMaxMind.com" + metadata)
    return path


def _number(child: Any, nodes: int) -> int:
    if child is None:
        return nodes
    return nodes + 16 + int(child[1]) if isinstance(child, tuple) else int(child)


def _place(nodes: list[list[Any]], bits: str, value: tuple[str, int]) -> None:
    at = 0
    for bit in bits[:-1]:
        child = nodes[at][int(bit)]
        assert not isinstance(child, tuple), "networks of a test do not overlap"
        if child is None:
            nodes.append([None, None])
            child = nodes[at][int(bit)] = len(nodes) - 1
        at = child
    nodes[at][int(bits[-1])] = value


def _encoded(value: Any) -> bytes:  # noqa: PLR0911 - one for each type
    """Return a value in the data format of MaxMind DB 2.0."""
    if isinstance(value, bool):
        return _control(_BOOLEAN, int(value))
    if isinstance(value, tuple):
        number = int(value[1]).to_bytes((int(value[1]).bit_length() + 7) // 8)
        return _control(_TYPES[value[0]], len(number)) + number
    if isinstance(value, int):
        return _encoded(("uint32", value))
    if isinstance(value, float):
        return _control(_TYPES["double"], 8) + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return _control(_TYPES["string"], len(raw)) + raw
    if isinstance(value, list):
        return _control(_TYPES["array"], len(value)) + b"".join(map(_encoded, value))
    pairs = b"".join(_encoded(str(name)) + _encoded(inner) for name, inner in value.items())
    return _control(_TYPES["map"], len(value)) + pairs


def _control(kind: int, size: int) -> bytes:
    assert size < 29, "values of a test are small"
    if kind > 7:
        return bytes([size, kind - 7])
    return bytes([kind << 5 | size])
