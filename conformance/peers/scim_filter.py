"""SCIM filters, as far as a hub needs them: `attribute eq "text"`, joined by `and` and `or`.

Source: RFC 7644 §3.4.2.2. Anything else is answered `invalidFilter`, never ignored.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from conformance.peers.errors import FilterError

FILTER_CHARS_MAX = 2000
MEMBERS_PATH = re.compile(r'members\[\s*value\s+(?i:eq)\s+("(?:[^"\\]|\\.)*")\s*\]')
_TERM = re.compile(r'\s*([A-Za-z][\w.:$-]*)\s+(?i:eq)\s+("(?:[^"\\]|\\.)*"|true|false)')
_JOIN = re.compile(r"\s+(?i:(and|or))\s+")
_CASE_INSENSITIVE = frozenset({"username", "emails.value", "emails", "displayname"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One comparison. attribute: in lower case, because attribute names compare so."""

    attribute: str
    value: str


def parse_filter(text: str) -> list[list[Term]]:
    """Read a filter as alternatives of terms that must all hold.

    Raises FilterError.
    """
    if len(text) > FILTER_CHARS_MAX:
        raise FilterError("the filter is too long")
    alternatives: list[list[Term]] = [[]]
    position = 0
    while True:
        term = _TERM.match(text, position)
        if term is None:
            raise FilterError(f"not understood at character {position}")
        value = str(json.loads(term[2])) if term[2].startswith('"') else term[2]
        alternatives[-1].append(Term(attribute=term[1].lower(), value=value))
        position = term.end()
        if not text[position:].strip():
            return alternatives
        join = _JOIN.match(text, position)
        if join is None:
            raise FilterError(f"not understood at character {position}")
        if join[1].lower() == "or":
            alternatives.append([])
        position = join.end()


def holds(alternatives: list[list[Term]], values: Mapping[str, frozenset[str]]) -> bool:
    """Tell whether a resource fits; values: lower-case attribute name to its values.

    Raises FilterError for an attribute that the resource type does not have.
    """
    return any(all(_equals(term, values) for term in terms) for terms in alternatives)


def _equals(term: Term, values: Mapping[str, frozenset[str]]) -> bool:
    if term.attribute not in values:
        raise FilterError(f"no attribute {term.attribute}")
    present = values[term.attribute]
    if term.attribute in _CASE_INSENSITIVE:
        return term.value.casefold() in {value.casefold() for value in present}
    return term.value in present
