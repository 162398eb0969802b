"""Mappings that come with the hub, one per product: data files in `receivers/profiles`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import msgspec

from receivers.webhooks.mapping import WebhookMapping
from receivers.webhooks.rules import compile_mapping
from runtime.errors import Invalid

_FOLDER: Final = files("receivers") / "profiles"
_SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookProfile:
    """A ready mapping of one product.

    verified: whether the shape of the messages was found in public documentation; if not, `why`
    says what was taken instead. signature: how the product signs, as members of the settings.
    """

    name: str
    title: str
    source_class: str
    verified: bool
    why: str
    sources: tuple[str, ...]
    retrieved: str
    signature: Mapping[str, Any]
    mapping: WebhookMapping


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all ready mappings."""
    found = (each.name for each in _FOLDER.iterdir() if each.name.endswith(_SUFFIX))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found))


@functools.cache
def find(name: str) -> WebhookProfile:
    """Return a ready mapping. Raises Invalid when there is none of this name."""
    if name not in names():
        known = ", ".join(names())
        raise Invalid("There is no such profile.", pointers=(("/profile", f"one of {known}"),))
    document = msgspec.json.decode((_FOLDER / f"{name}{_SUFFIX}").read_bytes())
    return WebhookProfile(
        name=name,
        title=document["title"],
        source_class=document["source_class"],
        verified=document["verified"],
        why=document.get("why", ""),
        sources=tuple(document["sources"]),
        retrieved=document["retrieved"],
        signature=document["signature"],
        mapping=compile_mapping(document["mapping"], f"/{name}"),
    )
