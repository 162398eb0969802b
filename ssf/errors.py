"""The error tree of the protocol core.

::

    SharedSignalsError
      RemoteProtocolError     the peer broke a rule
        SETError              a SET is refused; the code is one of RFC 8935
        SubjectError          a subject identifier is malformed
        EventError            an event payload breaks its definition
        StreamError           a stream management message is unacceptable
        PollError             a poll message is unacceptable
      LocalProtocolError      we were about to break a rule: a bug of ours
"""

from typing import Final

BAD_REQUEST: Final = 400
INTERNAL_ERROR: Final = 500


class SharedSignalsError(Exception):
    """Root of everything this package raises.

    code: short, stable, for machines. description: English, for people; it never holds keys,
    tokens or subjects. status_hint: the HTTP status that fits.
    """

    def __init__(self, code: str, description: str, *, status_hint: int = BAD_REQUEST) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description
        self.status_hint = status_hint


class RemoteProtocolError(SharedSignalsError):
    """The peer broke a rule. requirement: the row of the requirement list, such as "SET-52"."""

    def __init__(
        self, code: str, description: str, *, requirement: str, status_hint: int = BAD_REQUEST
    ) -> None:
        super().__init__(code, description, status_hint=status_hint)
        self.requirement = requirement


class SETError(RemoteProtocolError):
    """A SET is refused. code is a registered "Security Event Token Error Code" (RFC 8935 §2.4)."""


class SubjectError(RemoteProtocolError):
    """A subject identifier is malformed (RFC 9493, SSF 1.0 §3)."""


class EventError(RemoteProtocolError):
    """An event payload breaks the definition of its type."""


class StreamError(RemoteProtocolError):
    """A stream management message or a metadata document is unacceptable (SSF 1.0 §7, §8)."""


class PollError(RemoteProtocolError):
    """A poll request or answer is unacceptable (RFC 8936)."""


class LocalProtocolError(SharedSignalsError):
    """We were about to break a rule ourselves: a bug, answered 500."""

    def __init__(self, code: str, description: str, *, status_hint: int = INTERNAL_ERROR) -> None:
        super().__init__(code, description, status_hint=status_hint)
