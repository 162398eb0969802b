"""The people a peer knows, and how a subject identifier selects them."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from conformance.peers.errors import UnknownUserError, UnsupportedSubjectError
from conformance.peers.options import UserOptions
from ssf.subject import SimpleSubject, Subject, simple_members

USERS_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person. sub: how iss_sub subjects and logout tokens name the person here."""

    user_id: str
    user_name: str
    email: str | None
    external_id: str | None
    sub: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a subject selects: None means that it does not narrow by this."""

    user_ids: frozenset[str] | None = None
    device_ids: frozenset[str] | None = None
    session_ids: frozenset[str] | None = None


class Directory:
    """All people of one peer, found by any of their names."""

    def __init__(self, users: Iterable[UserOptions] = ()) -> None:
        self._users: dict[str, User] = {}
        self._names: dict[str, str] = {}
        for user in users:
            self.add(user)

    def add(self, given: UserOptions) -> User:
        """Add a person, or replace the one with this id. Raises ValueError when full."""
        if len(self._users) >= USERS_MAX and given.id not in self._users:
            raise ValueError("too many users")
        email = given.email or (given.id if "@" in given.id else None)
        user = User(
            user_id=given.id,
            user_name=given.user_name or email or given.id,
            email=email,
            external_id=given.external_id,
            sub=given.sub or given.id,
        )
        self._users[user.user_id] = user
        # Mail addresses and user names compare without case (RFC 7643 §4.1.1), ids exactly.
        for name in (user.user_name, user.email):
            if name:
                self._names[name.casefold()] = user.user_id
        return user

    def find(self, name: str) -> User | None:
        """Find a person by id, user name, mail address or external id; None if unknown."""
        if name in self._users:
            return self._users[name]
        if user := self._by_name(name):
            return user
        return next((user for user in self if name in (user.external_id, user.sub)), None)

    def get_or_add(self, name: str) -> User:
        """Find a person, or make one from a name: applications learn users as they come."""
        return self.find(name) or self.add(UserOptions(id=name))

    def __iter__(self) -> Iterator[User]:
        """Iterate over a snapshot of all people."""
        return iter(tuple(self._users.values()))

    def select(
        self, subject: Subject, *, formats: Collection[str], issuer: str | None
    ) -> Selection:
        """Resolve a subject: simple, aliases, or complex with all its members together (SUB-34).

        formats: what this peer understands. issuer: the only `iss` that iss_sub may carry; None for
        any. Raises UnsupportedSubjectError when no identifier of a member is understood,
        UnknownUserError when the user is not known here.
        """
        members: dict[str, list[SimpleSubject]] = {}
        for name, simple in simple_members(subject):
            members.setdefault(name or "user", []).append(simple)
        user_ids = None
        if "user" in members:
            user_ids = self._select_users(members["user"], formats=formats, issuer=issuer)
        return Selection(
            user_ids=user_ids,
            device_ids=_opaque_ids(members.get("device")),
            session_ids=_opaque_ids(members.get("session")),
        )

    def _select_users(
        self, names: list[SimpleSubject], *, formats: Collection[str], issuer: str | None
    ) -> frozenset[str]:
        understood = [simple for simple in names if simple.format in formats]
        if not understood:
            raise UnsupportedSubjectError(", ".join(simple.format for simple in names))
        found = [self._find_simple(simple, issuer) for simple in understood]
        user_ids = frozenset(user.user_id for user in found if user is not None)
        if not user_ids:
            raise UnknownUserError
        return user_ids

    def _find_simple(self, simple: SimpleSubject, issuer: str | None) -> User | None:
        if simple.format == "email":
            return self._by_name(simple.get("email"))
        if simple.format == "iss_sub":
            if issuer is not None and simple.get("iss") != issuer:
                return None
            sub = simple.get("sub")
            return next((user for user in self if user.sub == sub), None)
        identifier = simple.get("id")
        return self._users.get(identifier) if identifier else None

    def _by_name(self, name: str | None) -> User | None:
        user_id = self._names.get(name.casefold()) if name else None
        return self._users.get(user_id) if user_id else None


def _opaque_ids(names: list[SimpleSubject] | None) -> frozenset[str] | None:
    if names is None:
        return None
    return frozenset(identifier for simple in names if (identifier := simple.get("id")))
