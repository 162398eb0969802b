"""What a user agent says it is: family, major version and operating system. Pure.

Only a comparison with the session's earlier user agent is needed, so a short list of tokens is
enough: what is not known becomes the first product token, which still tells two programs apart.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

#: browsers send 100 to 300 characters; what is longer is cut, not refused
USER_AGENT_CHARS_MAX: Final = 1024
FAMILY_CHARS_MAX: Final = 40
MAJOR_MAX: Final = 9_999_999
#: user agents of one process that are kept parsed
PARSED_MAX: Final = 4_096

#: The first that fits wins: browsers name those they descend from after or before themselves.
_FAMILIES: Final = tuple(
    (family, re.compile(pattern))
    for family, pattern in (
        ("edge", r"\b(?:Edg|EdgA|EdgiOS|Edge)/(\d+)"),
        ("opera", r"\b(?:OPR|OPiOS|OPX)/(\d+)"),
        ("samsung", r"\bSamsungBrowser/(\d+)"),
        ("vivaldi", r"\bVivaldi/(\d+)"),
        ("yandex", r"\bYaBrowser/(\d+)"),
        ("firefox", r"\b(?:Firefox|FxiOS)/(\d+)"),
        ("chrome", r"\b(?:HeadlessChrome|Chrome|Chromium|CriOS)/(\d+)"),
        ("safari", r"\bVersion/(\d+)(?:\.\d+)* .*\bSafari/"),
        ("safari", r"\bSafari/(\d+)"),
        ("ie", r"\b(?:MSIE |Trident/.*\brv:)(\d+)"),
    )
)
_SYSTEMS: Final = tuple(
    (system, re.compile(pattern))
    for system, pattern in (
        ("windows", r"\bWindows\b"),
        ("ios", r"\b(?:iPhone|iPad|iPod)\b"),
        ("android", r"\bAndroid\b"),
        ("chromeos", r"\bCrOS\b"),
        ("macos", r"\bMac(?: OS X|intosh)\b"),
        ("linux", r"\b(?:Linux|X11)\b"),
    )
)
_PRODUCT: Final = re.compile(r"([A-Za-z][\w.+-]{0,39})(?:/(\d{1,7}))?")


@dataclass(frozen=True, slots=True)
class Agent:
    """A user agent, as far as it can be told. family "": none was sent; major 0: not told."""

    family: str
    major: int
    os_family: str


NO_AGENT: Final = Agent("", 0, "")


@functools.lru_cache(maxsize=PARSED_MAX)
def parse_agent(user_agent: str) -> Agent:
    """Return what a user agent says it is; it is cut at 1,024 characters. Raises nothing."""
    text = user_agent[:USER_AGENT_CHARS_MAX]
    if not text.strip():
        return NO_AGENT
    family, major = _family(text)
    system = next((name for name, pattern in _SYSTEMS if pattern.search(text)), "other")
    return Agent(family, major, system)


def _family(text: str) -> tuple[str, int]:
    for family, pattern in _FAMILIES:
        if found := pattern.search(text):
            return family, min(int(found[1][:8]), MAJOR_MAX)
    # The last product of a browser-like text is the most particular one; scripts have only one.
    products = _PRODUCT.findall(text)
    if not products:
        return "other", 0
    name, major = products[-1] if text.startswith("Mozilla/") else products[0]
    return name[:FAMILY_CHARS_MAX].lower(), int(major or 0)
