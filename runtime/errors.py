"""What can go wrong below the features, in two families.

    Refused                  a use case says no; the caller must change something
      Invalid                  the request itself is wrong (400); carries pointers
      Unauthorized             nobody is known to be asking (401)
      Forbidden                somebody is, and may not (403)
      NotFound                 absent, or another tenant's (404)
      Conflict                 contradicts what is stored (409)
    Unavailable              nothing usable came from outside; try later
      TimedOut, ConnectFailed, AddressBlocked, BodyTooLarge, Overloaded

Errors become HTTP in `hub/errors.py` and nowhere else.
"""

from __future__ import annotations


class Refused(Exception):
    """A use case says no. `detail` is safe to show to the caller."""

    status = 400

    def __init__(self, detail: str, *, pointers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        #: (JSON pointer or parameter name, what is wrong there), at most 20
        self.pointers = pointers[:20]


class Invalid(Refused):
    """The request is malformed or breaks a rule."""

    status = 400


class Unauthorized(Refused):
    """No valid credentials came with the request. `code` is the RFC 6750 error, if any came."""

    status = 401

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.code = code


class Forbidden(Refused):
    """The caller is known and may not do this. `scope` names what was missing."""

    status = 403

    def __init__(self, detail: str, *, scope: str | None = None) -> None:
        super().__init__(detail)
        self.scope = scope


class NotFound(Refused):
    """No such object in this tenant."""

    status = 404


class Conflict(Refused):
    """The request contradicts the stored state."""

    status = 409


class TooManyRequests(Refused):
    """The caller asks more often than is agreed. `retry_after_s`: when to come again."""

    status = 429

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Unavailable(Exception):
    """Nothing usable came from outside. `retry_after_s` is a hint for the caller."""

    def __init__(self, detail: str, *, retry_after_s: float = 5.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class TimedOut(Unavailable):
    """The other side did not answer in time."""


class ConnectFailed(Unavailable):
    """No connection: refused, unreachable, DNS or TLS failure."""


class AddressBlocked(Unavailable):
    """The egress guard refuses the address. Retrying does not help."""


class BodyTooLarge(Unavailable):
    """The answer was larger than the caller allows."""


class Overloaded(Unavailable):
    """A bounded queue of ours is full; nothing was accepted."""
