"""One HTTP operation as the OpenAPI document tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

JSON: Final = "application/json"
ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One operation: who may call it (`scopes`, empty for public), with what, answered how.

    prescribed: error statuses whose body a standard prescribes -> the name of its schema. plain:
    those whose body is plain text.
    """

    path: str
    method: str
    operation_id: str
    summary: str
    tag: str
    answers: Mapping[int, str]
    scopes: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    required_query: tuple[str, ...] = ()
    body: dict[str, Any] | None = None
    body_type: str = JSON
    example: Any = None
    answer_type: str | None = JSON
    prescribed: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    plain: frozenset[int] = frozenset()

    def query_parameters(self) -> list[dict[str, Any]]:
        """Return its query parameters as OpenAPI has them."""
        return [
            {
                "name": name,
                "in": "query",
                "required": name in self.required_query,
                "schema": {"type": "string"},
            }
            for name in (*self.required_query, *self.query)
        ]
