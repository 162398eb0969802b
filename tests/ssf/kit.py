"""What the protocol tests share: readers of vectors, key pairs, and strategies for subjects."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ssf.subject import Subject, complex_subject, parse_subject

VECTORS = Path(__file__).parents[2] / "conformance" / "vectors"

Vector = Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One key as the JWK dictionaries that go into our parsers."""

    private: dict[str, object]
    public: dict[str, object]


KeyPairs = Mapping[str, KeyPair]


def read_vector(number: int) -> Any:
    """Return the message of example EX-<number>."""
    (path,) = VECTORS.glob(f"ex{number:02d}-*.json")
    return json.loads(path.read_text())["value"]


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
)
WORDS = st.text("abcXYZ019-_.äß中", min_size=1, max_size=12)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=6,
)


def _of(name: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    renamed = {member.replace("__", "-"): strategy for member, strategy in members.items()}
    return st.fixed_dictionaries({"format": st.just(name), **renamed})


SIMPLE_OBJECTS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    _of("account", uri=st.builds("acct:{}@{}".format, WORDS, WORDS)),
    _of("email", email=st.builds("{}@{}".format, WORDS, WORDS)),
    _of("iss_sub", iss=TEXTS, sub=TEXTS),
    _of("opaque", id=TEXTS),
    _of("phone_number", phone_number=st.from_regex(r"\A\+[0-9]{3}[ .-]?[0-9]{4,12}\Z")),
    _of("did", url=st.builds("did:example:{}".format, WORDS)),
    _of("uri", uri=st.builds("urn:x:{}".format, WORDS)),
    _of("jwt_id", iss=TEXTS, jti=TEXTS),
    _of("saml_assertion_id", issuer=TEXTS, assertion_id=TEXTS),
    _of("ip-addresses", ip__addresses=st.lists(st.ip_addresses().map(str), min_size=1, max_size=3)),
    _of("scim", uri=TEXTS, externalId=TEXTS),
    _of("catalog_item", id=TEXTS, details=JSON_VALUES),
)
PRINCIPAL_OBJECTS = SIMPLE_OBJECTS | _of(
    "aliases", identifiers=st.lists(SIMPLE_OBJECTS, min_size=1, max_size=3)
)
SIMPLE_SUBJECTS = SIMPLE_OBJECTS.map(parse_subject)
_MEMBERS = st.dictionaries(
    st.sampled_from(["user", "device", "session", "tenant", "x-kind"]),
    PRINCIPAL_OBJECTS.map(parse_subject),
    min_size=1,
    max_size=3,
)
SUBJECTS: st.SearchStrategy[Subject] = PRINCIPAL_OBJECTS.map(parse_subject) | _MEMBERS.map(
    lambda members: complex_subject(**members)  # type: ignore[arg-type]  # principals by construction
)
