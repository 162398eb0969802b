"""Reading how much of a list a caller wants."""

from __future__ import annotations

from runtime.errors import Invalid


def page_limit(text: str, *, most: int) -> int:
    """Return the page size that a `limit` parameter asks for: 1 to `most`, in plain digits.

    Raises Invalid. A number with more digits than `most` is refused unread, whatever it is.
    """
    is_short_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not (is_short_number and 1 <= int(text) <= most):
        raise Invalid("Bad page size.", pointers=(("limit", f"1 to {most}"),))
    return int(text)
