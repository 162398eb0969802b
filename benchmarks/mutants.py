"""Makes bent SETs by class: what must be refused, and what only looks odd and must be accepted.

From `bent_header` on every mutant is signed with the key that the hub knows, so that nothing but
the check it is aimed at stands in its way. A generator takes a `Workshop` and gives a compact JWS;
all chance comes from the workshop's seeded source.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwcrypto.jwk import JWK

ISSUER: Final = "https://vendor.mutants.example"
AUDIENCE: Final = "https://hub.mutants.example/receivers"
KID: Final = "mutants-1"
CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
COORDINATE_BYTES: Final = 32
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FAR_FUTURE_S: Final = 86_400

#: event type -> a good payload, and the members without which it is broken; stream-updated without
#: a status is read all the same (SSF-UPD-6)
EVENTS: Final[Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]]] = {
    CAEP + "session-revoked": ({"initiating_entity": "policy"}, ()),
    CAEP + "token-claims-change": ({"claims": {"role": "ro"}}, ("claims",)),
    CAEP + "credential-change": (
        {"credential_type": "password", "change_type": "update"},
        ("credential_type", "change_type"),
    ),
    CAEP + "assurance-level-change": (
        {"namespace": "NIST-AAL", "current_level": "nist-aal1", "previous_level": "nist-aal2"},
        ("namespace", "current_level"),
    ),
    CAEP + "device-compliance-change": (
        {"previous_status": "compliant", "current_status": "not-compliant"},
        ("previous_status", "current_status"),
    ),
    CAEP + "risk-level-change": (
        {"principal": "USER", "current_level": "LOW", "previous_level": "HIGH"},
        ("principal", "current_level"),
    ),
    RISC + "credential-compromise": ({"credential_type": "password"}, ("credential_type",)),
    RISC + "account-disabled": ({"reason": "hijacking"}, ()),
    RISC + "identifier-changed": ({"new-value": "new@mutants.example"}, ()),
    SSF + "verification": ({"state": "c3RhdGU"}, ()),
    SSF + "stream-updated": ({"status": "paused", "reason": "maintenance"}, ()),
}
SUBJECTS: Final[tuple[Mapping[str, Any], ...]] = (
    {"format": "email", "email": "rosa@mutants.example"},
    {"format": "iss_sub", "iss": "https://idp.mutants.example", "sub": "rosa"},
    {"format": "opaque", "id": "11112222333344445555"},
    {"format": "phone_number", "phone_number": "+4930901820"},
    {"format": "account", "uri": "acct:rosa@mutants.example"},
    {"format": "did", "url": "did:example:123456/did/url/path?versionId=1"},
    {"format": "uri", "uri": "urn:uuid:4e851e98-83c4-4743-a5da-150ecb53042f"},
    {"format": "jwt_id", "iss": "https://idp.mutants.example", "jti": "B70BA622"},
    {"format": "saml_assertion_id", "issuer": "https://idp.mutants.example", "assertion_id": "_1"},
    {"format": "ip-addresses", "ip-addresses": ["10.29.37.75", "2001:db8::1"]},
    {"format": "scim", "uri": "/Users/2b2f880af6674ac284bae9381673d462"},
)
#: no value of these types is a string, an array or an object with members that mean anything
NO_STRINGS: Final[tuple[Any, ...]] = (True, 0, -1, 1.5, 10**30, [], [1], {}, {"a": "b"}, "", None)
BAD_IATS: Final[tuple[Any, ...]] = (None, True, -1, 1.5, "1774000300", [], {}, 10**40, "")


def encoded(raw: bytes) -> bytes:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


class Workshop:
    """Keys, chance and good SETs; `jti`s are unique within one workshop."""

    def __init__(self, seed: int, now_s: int) -> None:
        self.chance = random.Random(seed)
        self.now_s = now_s
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.foreign = ec.generate_private_key(ec.SECP256R1())
        self._count = 0

    @property
    def jwks(self) -> dict[str, Any]:
        """The keys that the hub is told of."""
        return {"keys": [self.public_jwk(self.key)]}

    def public_jwk(self, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
        """Return the public half as a JWK under the known `kid`."""
        jwk: dict[str, Any] = json.loads(JWK.from_pyca(key.public_key()).export_public())
        return {**jwk, "kid": KID, "use": "sig", "alg": "ES256"}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good SET of any kind; a change to `...` leaves a claim out."""
        self._count += 1
        event_type = self.chance.choice(list(EVENTS))
        payload = {**EVENTS[event_type][0], "event_timestamp": self.now_s - 60}
        good = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": self.now_s - self.chance.randrange(60),
            "jti": f"m-{self._count}",
            "txn": f"t-{self._count}",
            "sub_id": dict(self.chance.choice(SUBJECTS)),
            "events": {event_type: payload},
        }
        return {name: value for name, value in (good | changes).items() if value is not ...}

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return a good header, changed; a change to `...` leaves a member out."""
        good = {"alg": "ES256", "typ": "secevent+jwt", "kid": KID}
        return {name: value for name, value in (good | changes).items() if value is not ...}

    def sign(
        self,
        payload: Mapping[str, Any] | bytes,
        header: Mapping[str, Any] | bytes | None = None,
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        """Return a compact JWS with a valid signature. key: the known one by default."""
        head = header if isinstance(header, bytes) else dumped(header or self.header())
        body = payload if isinstance(payload, bytes) else dumped(payload)
        signing_input = encoded(head) + b"." + encoded(body)
        der = (key or self.key).sign(signing_input, ec.ECDSA(hashes.SHA256()))
        return signing_input + b"." + encoded(side_by_side(*decode_dss_signature(der)))

    def good(self, **changes: Any) -> bytes:
        """Return a good SET."""
        return self.sign(self.claims(**changes))


def dumped(value: object) -> bytes:
    """Return JSON; lone surrogates stay as they are, which no UTF-8 may hold."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def side_by_side(r: int, s: int) -> bytes:
    """Return an ES256 signature as JWS has it."""
    return r.to_bytes(COORDINATE_BYTES) + s.to_bytes(COORDINATE_BYTES)


Generator = Callable[[Workshop], bytes]


# --- must be refused: bytes, signatures, headers -------------------------------------------------


def bent_bytes(shop: Workshop) -> bytes:
    """One to four edits of the bytes of a good SET."""
    raw = good = shop.good()
    while raw == good:
        for _ in range(shop.chance.randint(1, 4)):
            raw = _edited(raw, shop.chance)
    return raw


def _edited(raw: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(raw) + 1)
    other = chance.randrange(len(raw) + 1)
    one = bytes([chance.randrange(256)])
    edits = (
        raw[:at] + one + raw[at:],
        raw[:at] + one + raw[at + 1 :],
        raw[: max(at - 1, 0)] + raw[at:],
        raw[:at],
        raw[at:],
        raw[:at] + raw[min(at, other) : max(at, other)] + raw[at:],
        raw[:at] + chance.choice((b".", b"=", b"\n", b" ", b"+", b"/", b"\x00")) + raw[at:],
        raw[:at] + raw[at:].swapcase(),
        b".".join(chance.sample(raw.split(b"."), raw.count(b".") + 1)),
    )
    return chance.choice(edits)


def wrong_signature(shop: Workshop) -> bytes:
    """A good SET whose signature says nothing about it."""
    chance = shop.chance
    head, body, signature = shop.good().split(b".")
    other = shop.good().split(b".")[2]
    raw = base64.urlsafe_b64decode(signature + b"==")
    r, s = int.from_bytes(raw[:COORDINATE_BYTES]), int.from_bytes(raw[COORDINATE_BYTES:])
    jwk = shop.public_jwk(shop.key)
    wrong = (
        other,
        b"",
        encoded(side_by_side(0, 0)),
        encoded(side_by_side(0, s)),
        encoded(side_by_side(r, 0)),
        encoded(side_by_side(P256_ORDER, P256_ORDER)),
        encoded(side_by_side(s, r)),
        encoded(bytes([*raw[:-1], raw[-1] ^ (1 << chance.randrange(8))])),
        encoded(raw[: chance.randrange(64)]),
        encoded(raw + b"\x00" * chance.randint(1, 64)),
        encoded(chance.randbytes(64)),
        encoded(b"\x00" * 64),
        encoded(b"\xff" * 64),
        encoded(shop.key.sign(head + b"." + body, ec.ECDSA(hashes.SHA256()))),
        encoded(hmac.digest(dumped(jwk), head + b"." + body, hashlib.sha256)),
    )
    return head + b"." + body + b"." + chance.choice(wrong)


def foreign_key(shop: Workshop) -> bytes:
    """Signed by a key that the issuer does not publish, however it is introduced."""
    jwk = shop.public_jwk(shop.foreign)
    introductions: tuple[dict[str, Any], ...] = (
        {},
        {"jwk": jwk},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem", "x5c": ["MIIB"]},
        {"kid": "mutants-2"},
        {"kid": ...},
        {"kid": "../../dev/null"},
        {"kid": "' OR '1'='1"},
        {"kid": "https://evil.example/jwks.json#1"},
        {"kid": "x" * shop.chance.randint(1, 3_000)},
        {"kid": f"random-{shop.chance.getrandbits(64):x}"},
    )
    header = shop.header(**shop.chance.choice(introductions))
    return shop.sign(shop.claims(), header, key=shop.foreign)


def bent_header(shop: Workshop) -> bytes:
    """Validly signed, and the header forbids taking it."""
    chance = shop.chance
    good = dumped(shop.header())
    algs = (
        "none",
        "None",
        "NONE",
        "",
        "HS256",
        "HS512",
        "RS256",
        "ES384",
        "ES256K",
        "es256",
        "ES256 ",
    )
    typs = (
        "JWT",
        "jwt",
        "",
        "at+jwt",
        "logout+jwt",
        "secevent",
        "application/jwt",
        "secevent+jwt ",
    )
    wrong: tuple[Mapping[str, Any] | bytes, ...] = (
        shop.header(alg=chance.choice(algs)),
        shop.header(alg=chance.choice(NO_STRINGS)),
        shop.header(alg=...),
        shop.header(typ=chance.choice(typs)),
        shop.header(typ=...),
        shop.header(typ=chance.choice(NO_STRINGS)),
        shop.header(kid=chance.choice((True, 0, 1.5, [], {}))),
        shop.header(crit=chance.choice((["b64"], ["exp"], [], None, "b64", {}, 1, [KID]))),
        good[:-1] + b',"alg":"none"}',
        good[:-1] + b',"typ":"secevent+jwt"}',
        b'{"alg":"none",' + good[1:],
        good[: chance.randrange(len(good))],
        good + chance.choice((b"}", b",", b"{}", b"\x00")),
        b"[" + good + b"]",
        chance.choice((b"", b"null", b"1", b'"ES256"', b"[]", b"\xff\xfe")),
        shop.header(note="\x00"),
        shop.header(note="x" * 5_000),
    )
    return shop.sign(shop.claims(), chance.choice(wrong))


# --- must be refused: validly signed, with the right header ---------------------------------------


def bent_claims(shop: Workshop) -> bytes:
    """A claim is missing, of a wrong type, or names somebody else."""
    chance = shop.chance
    others = (
        "https://evil.example",
        ISSUER + "/",
        ISSUER.upper(),
        ISSUER[:-1],
        " " + ISSUER,
        [ISSUER],
        *NO_STRINGS,
    )
    audiences = (
        "https://evil.example",
        AUDIENCE + "/",
        [],
        [[AUDIENCE]],
        [AUDIENCE, 1],
        [None, AUDIENCE],
        {AUDIENCE: 1},
        ["https://evil.example"] * chance.randint(1, 200),
        *NO_STRINGS,
    )
    changes: tuple[dict[str, Any], ...] = (
        {chance.choice(("iss", "aud", "iat", "jti", "sub_id", "events")): ...},
        {"iss": chance.choice(others)},
        {"aud": chance.choice(audiences)},
        {"iat": chance.choice(BAD_IATS)},
        {"iat": shop.now_s + FAR_FUTURE_S + chance.randrange(10**6)},
        {"jti": chance.choice(NO_STRINGS)},
        {"jti": "é" * chance.randint(300, 3_000)},
        {"txn": chance.choice((True, 1, 1.5, [], {}, ["t"]))},
        {"toe": chance.choice((True, "now", [], {}, -1, 10**30, "1774000300"))},
        {"exp": chance.choice((shop.now_s + 3_600, 0, None, "never"))},
        {"sub": chance.choice(("rosa", None, {}, 1))},
    )
    return shop.good(**chance.choice(changes))


def malformed_payload(shop: Workshop) -> bytes:
    """Validly signed, but no JSON object, or one that two readers would read differently."""
    chance = shop.chance
    good = dumped(shop.claims())
    at = chance.randrange(1, len(good) - 1)
    wrong = (
        good[:at],
        good[at:],
        good + chance.choice((b"}", b"{}", b",", b"x", b"\x00", b"null")),
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        b"[" + good + b"]",
        good.replace(b'"', b"'"),
        good[:-1] + b",}",
        good[:-1] + b',"jti":"again"}',
        good[:-1] + b',"events":{}}',
        good[:-1] + b',"x":{"a":1,"a":2}}',
        good[:-1] + b',"x":[{"a":{"b":1,"b":1}}]}',
        good[:-1] + b',"j\\u0074i":"again"}',
        good[:-1] + b',"x":NaN}',
        good[:-1] + b',"x":Infinity}',
        good[:-1] + b',"x":1e999}',
        good[:-1] + b',"x":01}',
        good[:-1] + b',"x":+1}',
        good[:-1] + b',"x":"\\u0000"}',
        good[:-1] + b',"x":"\\ud800"}',
        good[:-1] + b',"\\u0000":1}',
        good[:-1] + b',"x":"\xff"}',
        good[:-1] + b',"x":"\n"}',
        good[:-1] + b',"x":"\\x"}',
        good[:-1] + b',"x":' + b"[" * 40 + b"]" * 40 + b"}",
        good[:-1] + b',"x":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"}",
        good[:-1] + b"/* a comment */}",
        good[:-1] + b',"x":"' + b"a" * 50_000 + b'"}',
        chance.choice((b"", b"null", b"true", b"0", b'"a"', b"[]", b"{}")),
        chance.randbytes(chance.randint(1, 400)),
    )
    return shop.sign(chance.choice(wrong))


def bent_subject(shop: Workshop) -> bytes:
    """`sub_id` names nobody."""
    chance = shop.chance
    simple = dict(chance.choice(SUBJECTS))
    member = chance.choice([name for name in simple if name != "format"])
    no_member = {name: value for name, value in simple.items() if name != member}
    aliases = {"format": "aliases", "identifiers": [simple]}
    deep: Any = simple
    for _ in range(chance.randint(35, 60)):
        deep = {"format": "x", "inner": deep}
    wrong: tuple[Any, ...] = (
        chance.choice((True, 0, 1.5, "rosa", "", [], [simple], None)),
        {},
        no_member,
        {**simple, member: chance.choice((True, 0, 1.5, [], [1], {}, {"a": "b"}, "", None))},
        {**simple, "format": chance.choice((True, 0, [], {}, "", None, "x" * 5_000))},
        {name: value for name, value in simple.items() if name != "format"},
        {"format": "email", "email": chance.choice(("rosa", "@x", "rosa@", "a b@c", "<a@b>", "@"))},
        {"format": "phone_number", "phone_number": chance.choice(("1", "+", "abc", "+1a", "0049"))},
        {"format": "account", "uri": chance.choice(("rosa@x", "acct:", "acct:@", "http://x"))},
        {"format": "did", "url": chance.choice(("did", "did:", "did:x", "DID:x:y z", "http://x"))},
        {"format": "uri", "uri": chance.choice(("x", ":x", "1a:b", "a b:c", "http"))},
        {
            "format": "ip-addresses",
            "ip-addresses": chance.choice(([], ["x"], ["1.2.3"], [1], "::1")),
        },
        {"format": "opaque", "id": "x" * 5_000},
        {"format": "aliases", "identifiers": chance.choice(([], [aliases], [1], None, simple, {}))},
        {"format": "aliases", "identifiers": [simple] * 200},
        {"format": "complex"},
        {"format": "complex", "user": chance.choice((1, "rosa", [], {}, None, no_member))},
        {"format": "complex", "user": {"format": "complex", "user": simple}},
        {"format": "complex", **{f"m{number}": simple for number in range(60)}},
        deep,
    )
    return shop.good(sub_id=chance.choice(wrong))


def bent_event(shop: Workshop) -> bytes:
    """`events` holds none, several, or one that lacks what it must say."""
    chance = shop.chance
    event_type = chance.choice([name for name, (_, needed) in EVENTS.items() if needed])
    payload, needed = EVENTS[event_type]
    member = chance.choice(needed)
    without = {name: value for name, value in payload.items() if name != member}
    no_text = chance.choice((True, 0, -1, 1.5, 10**30, [], ["x"], None))
    wrong_times: tuple[Any, ...] = ("now", True, [], {}, -1, 10**40, "1774000300", -0.5)
    events: tuple[Any, ...] = (
        chance.choice((True, 0, "x", [], [event_type], {}, None)),
        {event_type: without},
        {event_type: {**payload, member: no_text}},
        {event_type: chance.choice((None, True, 1, "x", [], [payload]))},
        {event_type: {**payload, "event_timestamp": chance.choice(wrong_times)}},
        {event_type: {**payload, "reason_admin": chance.choice((1, True, ["x"], {"en": 1}))}},
        {event_type: {**payload, "initiating_entity": chance.choice((1, True, [], {}))}},
        {event_type: payload, "urn:mutants:other": {}},
        {name: payload for name, (payload, _) in EVENTS.items()},
        {"": payload},
        {"u" * 5_000: payload},
        {CAEP + "token-claims-change": {"claims": {}}},
    )
    return shop.good(events=chance.choice(events))


# --- must be accepted ----------------------------------------------------------------------------


def odd_but_legal(shop: Workshop) -> bytes:
    """What the standards allow, though few send it: more members, other spellings and orders."""
    chance = shop.chance
    junk: tuple[Any, ...] = (None, True, -1, 1.5, "", "é\u202e💥", [], [[{}]], {"a": {"b": []}})
    claims = shop.claims()
    ((event_type, payload),) = claims["events"].items()
    names = list(claims)
    chance.shuffle(names)
    extra = {f"x{number}": chance.choice(junk) for number in range(chance.randint(1, 20))}
    legal: tuple[Callable[[], bytes], ...] = (
        lambda: shop.sign(claims | extra),
        lambda: shop.sign(claims | {"nbf": shop.now_s, "at_hash": "x"}),
        lambda: shop.sign(claims, shop.header(**extra)),
        lambda: shop.sign(claims, shop.header(cty="json", x5t="x", jku="https://x.example")),
        lambda: shop.sign(claims, shop.header(typ=chance.choice(_TYPS))),
        lambda: shop.sign({name: claims[name] for name in names}),
        lambda: shop.sign(json.dumps(claims, indent=chance.randint(0, 8)).encode()),
        lambda: shop.sign(b" \r\n\t" + dumped(claims) + b"\n"),
        lambda: shop.sign(json.dumps(claims).replace("m-", "\\u006d-").encode()),
        lambda: shop.sign(claims | {"aud": [AUDIENCE]}),
        lambda: shop.sign(claims | {"aud": ["https://other.example", AUDIENCE, "x"]}),
        lambda: shop.sign(shop.claims(txn=...)),
        lambda: shop.sign(claims | {"toe": chance.choice((0, shop.now_s, shop.now_s - 0.5))}),
        lambda: shop.sign(claims | {"iat": shop.now_s - chance.randrange(10**6)}),
        lambda: shop.sign(claims | {"events": {event_type: {**payload, **extra}}}),
        lambda: shop.sign(claims | {"events": {f"urn:mutants:{chance.random()}": extra}}),
        lambda: shop.sign(claims | {"events": {event_type: {**payload, "event_timestamp": None}}}),
        lambda: shop.sign(
            claims | {"events": {event_type: {**payload, "reason_admin": {"de": "é"}}}}
        ),
        lambda: shop.sign(claims | {"sub_id": {**claims["sub_id"], "extra": chance.choice(junk)}}),
        lambda: shop.sign(claims | {"sub_id": {"format": "mutants", "any": chance.choice(junk)}}),
        lambda: shop.sign(claims | {"sub_id": {"format": "aliases", "identifiers": [*SUBJECTS]}}),
        lambda: shop.sign(claims | {"sub_id": _complex(chance)}),
    )
    return chance.choice(legal)()


_TYPS: Final = ("SECEVENT+JWT", "Secevent+Jwt", "application/secevent+jwt")


def _complex(chance: random.Random) -> dict[str, Any]:
    members = ("user", "device", "session", "application", "tenant", "org_unit", "group", "own")
    chosen = chance.sample(members, chance.randint(1, len(members)))
    return {"format": "complex", **{name: dict(chance.choice(SUBJECTS)) for name in chosen}}


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantClass:
    """A class of mutants. share: how many of a thousand mutants are of this class."""

    name: str
    make: Generator
    share: int
    is_legal: bool = False


CLASSES: Final = (
    MutantClass(name="bytes", make=bent_bytes, share=150),
    MutantClass(name="signature", make=wrong_signature, share=100),
    MutantClass(name="foreign key", make=foreign_key, share=100),
    MutantClass(name="JOSE header", make=bent_header, share=100),
    MutantClass(name="claims, validly signed", make=bent_claims, share=150),
    MutantClass(name="malformed, validly signed", make=malformed_payload, share=150),
    MutantClass(name="subject, validly signed", make=bent_subject, share=100),
    MutantClass(name="event, validly signed", make=bent_event, share=100),
    MutantClass(name="legal variation", make=odd_but_legal, share=50, is_legal=True),
)
