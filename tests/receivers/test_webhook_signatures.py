"""Who signed a webhook: the styles of the field, and what is not one of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receivers.webhooks.model import WebhookSettings, secret_problems, webhook_problems
from receivers.webhooks.signatures import SignatureSettings, WebhookStyle, standard_key, verify
from runtime.errors import Unauthorized

NOW = 1_772_469_300
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER = "whsec_" + base64.b64encode(KEY[::-1]).decode()
TEXT = "a-secret-of-both-sides"
BODY = b'{"type": "test"}'
STANDARD = SignatureSettings(style=WebhookStyle.STANDARD)
GITHUB = SignatureSettings(style=WebhookStyle.HMAC, prefix="sha256=")
SLACK = SignatureSettings(
    style=WebhookStyle.HMAC,
    header="X-Slack-Signature",
    prefix="v0=",
    timestamp_header="X-Slack-Request-Timestamp",
    signed="v0:{timestamp}:{body}",
)


def standard(
    body: bytes = BODY, *, at: object = NOW, key: bytes = KEY, message_id: str = "msg_1"
) -> dict[str, str]:
    content = f"{message_id}.{at}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }


def refused(settings: SignatureSettings, headers: dict[str, str], *secrets: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        verify(settings, secrets or (SECRET,), headers, BODY, now_s=NOW)
    assert caught.value.detail == "The message is not signed as it must be."


@pytest.mark.requirement("WH-10", "WH-12", "WH-14", "EGW-76")
def test_a_standard_webhook_is_taken_and_its_id_told() -> None:
    headers = standard()
    assert verify(STANDARD, [SECRET], headers, BODY, now_s=NOW) == "msg_1"
    svix = {name.replace("webhook-", "svix-"): value for name, value in headers.items()}
    assert verify(STANDARD, [SECRET], svix, BODY, now_s=NOW) == "msg_1"


@pytest.mark.requirement("WH-10")
def test_any_one_signature_suffices_and_unknown_versions_are_skipped() -> None:
    headers = standard()
    good = headers["webhook-signature"]
    headers["webhook-signature"] = f"v1a,xyz nonsense v1,AAAA {good}"
    assert verify(STANDARD, [OTHER, SECRET], headers, BODY, now_s=NOW) == "msg_1"
    headers["webhook-signature"] = good.replace("v1,", "v2,")
    refused(STANDARD, headers)


@pytest.mark.requirement("WH-10", "EGW-77")
def test_the_octets_count_not_what_they_mean() -> None:
    headers = standard(b'{"type":"test"}')
    refused(STANDARD, headers)


@pytest.mark.requirement("WH-11", "WH-13")
@pytest.mark.parametrize(
    "at", [NOW - 301, NOW + 301, "", "now", f"{NOW}.5", f"-{NOW}", f"+{NOW}", " 1", "9" * 30, "٣"]
)
def test_a_stale_or_odd_timestamp_is_refused(at: object) -> None:
    refused(STANDARD, standard(at=at))


@pytest.mark.requirement("WH-13")
@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(missing: str) -> None:
    headers = standard()
    del headers[missing]
    refused(STANDARD, headers)


@pytest.mark.requirement("WH-2", "WH-13")
@pytest.mark.parametrize("message_id", ["msg.1", "", "a b", "x" * 256, "é"])
def test_an_odd_id_is_refused(message_id: str) -> None:
    refused(STANDARD, standard(message_id=message_id))


@pytest.mark.requirement("WH-4")
def test_a_standard_secret_is_decoded_and_of_a_proper_length() -> None:
    assert standard_key(SECRET) == KEY
    for short in ("whsec_" + base64.b64encode(b"x" * 23).decode(), "whsec_###", "", TEXT):
        assert standard_key(short) is None


@pytest.mark.requirement("WH-14")
def test_an_hmac_in_a_header_is_taken_in_every_spelling() -> None:
    for algorithm in ("sha256", "sha512", "sha1"):
        for encoding in ("hex", "base64"):
            settings = SignatureSettings(
                style=WebhookStyle.HMAC, header="X-Sig", algorithm=algorithm, encoding=encoding
            )
            digest = hmac.digest(TEXT.encode(), BODY, algorithm)
            value = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
            verify(settings, [TEXT], {"X-Sig": value}, BODY, now_s=NOW)
            if encoding == "hex":
                verify(settings, [TEXT], {"X-Sig": value.upper()}, BODY, now_s=NOW)
            refused(settings, {"X-Sig": value[:-2]}, TEXT)
    signature = "sha256=" + hmac.new(TEXT.encode(), BODY, hashlib.sha256).hexdigest()
    verify(GITHUB, [TEXT], {"X-Hub-Signature-256": signature}, BODY, now_s=NOW)
    refused(GITHUB, {"X-Hub-Signature-256": signature.removeprefix("sha256=")}, TEXT)
    refused(GITHUB, {"X-Hub-Signature-256": ""}, TEXT)
    refused(GITHUB, {}, TEXT)


@pytest.mark.requirement("WH-14")
def test_a_signed_time_is_checked() -> None:
    def headers(at: int) -> dict[str, str]:
        content = f"v0:{at}:".encode() + BODY
        signature = hmac.new(TEXT.encode(), content, hashlib.sha256).hexdigest()
        return {"X-Slack-Signature": f"v0={signature}", "X-Slack-Request-Timestamp": str(at)}

    verify(SLACK, [TEXT], headers(NOW - 299), BODY, now_s=NOW)
    refused(SLACK, headers(NOW - 301), TEXT)
    refused(SLACK, {**headers(NOW - 1), "X-Slack-Request-Timestamp": str(NOW)}, TEXT)


def test_a_fixed_secret_is_compared_whole() -> None:
    basic = base64.b64encode(b"jamf:a-long-password").decode()
    for style, header, secret, value in (
        (WebhookStyle.BEARER, None, TEXT, f"Bearer {TEXT}"),
        (WebhookStyle.BASIC, None, "jamf:a-long-password", f"Basic {basic}"),
        (WebhookStyle.HEADER, "X-Api-Key", TEXT, TEXT),
    ):
        settings = SignatureSettings(style=style, header=header)
        name = header or "authorization"
        verify(settings, [TEXT + "-old", secret], {name: value}, BODY, now_s=NOW)
        for wrong in ("", value[:-1], value + "x", value.lower() + "é", TEXT[:-1]):
            refused(settings, {name: wrong}, secret)
        refused(settings, {}, secret)


@given(st.text(), st.text(), st.text())
def test_whatever_the_headers_are_the_answer_is_a_refusal(one: str, two: str, three: str) -> None:
    refused(
        STANDARD,
        {"webhook-id": one, "webhook-timestamp": two, "webhook-signature": three},
    )
    refused(GITHUB, {"X-Hub-Signature-256": one}, TEXT)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"profile": None}, "/webhook/mapping"),
        ({"mapping": {"rules": []}}, "/webhook/mapping"),
        ({"profile": "nobody"}, "/profile"),
        ({"profile": None, "mapping": {"rules": []}}, "/webhook/mapping/rules"),
        ({"header": "a b"}, "/webhook/header"),
        ({"header": "a\r\nb"}, "/webhook/header"),
        ({"style": WebhookStyle.HEADER}, "/webhook/header"),
        ({"algorithm": "md5"}, "/webhook/algorithm"),
        ({"encoding": "utf-8"}, "/webhook/encoding"),
        ({"signed": "v0"}, "/webhook/signed"),
        ({"signed": "{body}{body}"}, "/webhook/signed"),
        ({"signed": "{timestamp}{body}"}, "/webhook/signed"),
        ({"timestamp_header": "X-Time"}, "/webhook/signed"),
        ({"tolerance_s": 0}, "/webhook/tolerance_s"),
        ({"tolerance_s": 3601}, "/webhook/tolerance_s"),
        ({"prefix": "\n"}, "/webhook/prefix"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], pointer: str) -> None:
    settings = {"style": WebhookStyle.HMAC, "profile": "crowdstrike"} | changes
    assert pointer in dict(webhook_problems(WebhookSettings(**settings)))


def test_weak_secrets_are_refused_without_being_told() -> None:
    for style, secrets in (
        (WebhookStyle.HMAC, []),
        (WebhookStyle.HMAC, [TEXT] * 3),
        (WebhookStyle.HMAC, ["short"]),
        (WebhookStyle.HMAC, ["a secret with a \n break"]),
        (WebhookStyle.STANDARD, [TEXT]),
        (WebhookStyle.BASIC, [TEXT]),
    ):
        problems = list(secret_problems(WebhookSettings(style=style, profile="x"), secrets))
        assert problems
        assert not any(each and each in str(problems) for each in secrets)
