"""Bodies of admin requests: strict JSON, checked against a declared model."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import pydantic
from pydantic import Field
from starlette.requests import Request

from hub.limits import BODY_BYTES_MAX
from runtime.errors import Invalid, Refused
from ssf.errors import RemoteProtocolError
from ssf.strict_json import parse_object

JSON_MEDIA_TYPE: Final = "application/json"
#: how much of a member's name is repeated in an answer that refuses it
POINTER_CHARACTERS_MAX: Final = 200

Name = Annotated[str, Field(min_length=1, max_length=200)]
URL = Annotated[str, Field(min_length=1, max_length=2000)]


class UnsupportedMediaType(Refused):
    """The body is not JSON."""

    status = 415


class Body(pydantic.BaseModel):
    """A request body: unknown members are refused, so that a typo is not a silent default.

    Strict: a number in quotes is not a number, so that what is documented is what is taken.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, strict=True
    )


async def parse_body(request: Request, model: type[Body]) -> Any:
    """Return the body as `model`. Raises UnsupportedMediaType, Invalid with JSON pointers.

    The text is read as strictly as a SET: no duplicate members, no NUL, no deep nesting.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send the body as {JSON_MEDIA_TYPE}.")
    raw = await request.body()
    try:
        document = parse_object(raw, bytes_max=BODY_BYTES_MAX, error=_not_acceptable)
        # Written again, so that both readers of JSON saw the same and numbers are ones we can keep.
        return model.model_validate_json(msgspec.json.encode(document))
    except RemoteProtocolError as error:
        raise Invalid(f"The body is not acceptable: {error.description}.") from error
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        pointers = tuple((pointer_of(item["loc"]), item["msg"]) for item in found)
        raise Invalid("The body is not acceptable.", pointers=pointers) from error


def pointer_of(path: tuple[str | int, ...]) -> str:
    """Return the JSON Pointer of a member, cut to a readable length. Source: RFC 6901 §3."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in parts)[:POINTER_CHARACTERS_MAX]


def _not_acceptable(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="PD-3")
