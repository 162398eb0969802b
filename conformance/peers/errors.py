"""Why a peer does not do what was asked of it."""


class PeerError(Exception):
    """Root of everything the peers raise themselves."""


class TokenError(PeerError):
    """A token breaks a rule. requirement: the row of the requirement list."""

    def __init__(self, description: str, requirement: str) -> None:
        super().__init__(description)
        self.description = description
        self.requirement = requirement


class SCIMError(PeerError):
    """A SCIM error answer. scim_type: of RFC 7644 table 9, or None."""

    def __init__(self, status: int, scim_type: str | None, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.scim_type = scim_type
        self.detail = detail


class KeysUnavailableError(PeerError):
    """The signer's keys cannot be fetched: undecided, the caller should come back."""


class UnsupportedSubjectError(PeerError):
    """The subject is in a format that this peer does not understand."""


class UnknownUserError(PeerError):
    """The subject or reference names nobody here."""


class SignatureError(PeerError):
    """The message is not from the holder of the secret, or not from now."""


class FilterError(PeerError):
    """The filter is none that this server understands."""


class HubError(PeerError):
    """The hub did not do what a peer asked of it."""


class PollFailedError(PeerError):
    """A poll brought nothing usable."""


class OutboxFullError(PeerError):
    """Too many SETs wait to be delivered."""
