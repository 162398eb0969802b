"""Standard Webhooks: signature, request, answers, and the body people read."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions import messages, webhook
from actions.messages import Event, Step, Story, render_notification
from actions.model import Action, Cause, Proof, TaskResult, TaskState
from actions.outcomes import OutcomeClass
from actions.planning import decide
from tests.actions import kit

SECRET = "whsec_DIpKxQVMTAj3ms0QfPOOuxmzPc2zqNnC"
BODY = (
    b'{"type":"containment.opened","timestamp":"2026-03-20T09:51:45Z","data":{"containment_id":'
    b'"cnt_5521","user_id":"u-20417","level":"HIGH","cause":"MALWARE_DETECTED"}}'
)


@pytest.mark.requirement("WH-1", "WH-2", "WH-3", "WH-4")
def test_the_signature_is_the_one_of_the_printed_example() -> None:
    request = webhook.build_request(
        "https://a.example/hooks/signalhub",
        SECRET,
        message_id="msg_0195b0c8a1",
        timestamp_s=1_774_000_306,
        body=BODY,
    )

    assert request.method == "POST"
    assert request.body == BODY
    assert dict(request.headers) == {
        "content-type": "application/json",
        "webhook-id": "msg_0195b0c8a1",
        "webhook-timestamp": "1774000306",
        "webhook-signature": "v1,uwKsHlZkD5pwGZh/RfP2mjx/mCM+YmvoFbkVcKv7r8o=",
    }


@pytest.mark.requirement("WH-5", "EGW-78")
def test_a_later_attempt_keeps_the_id_and_signs_its_own_time() -> None:
    first, second = (
        webhook.build_request("https://a.example", SECRET, message_id="m", timestamp_s=at, body=b"")
        for at in (1, 2)
    )

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.requirement("WH-4")
@pytest.mark.parametrize(
    "secret",
    ["", "DIpKxQVMTAj3ms0QfPOOuxmzPc2zqNnC", "whsec_!", "whsec_" + base64.b64encode(b"x").decode()],
)
def test_a_malformed_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret"):
        webhook.parse_secret(secret)


@given(key=st.binary(min_size=24, max_size=64))
def test_a_secret_reads_back(key: bytes) -> None:
    assert webhook.parse_secret(webhook.render_secret(key)) == key


def test_a_key_of_wrong_length_makes_no_secret() -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        webhook.render_secret(b"short")


@pytest.mark.parametrize("message_id", ["a.b"])
def test_an_id_with_a_dot_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="dot"):
        webhook.build_request("https://a", SECRET, message_id=message_id, timestamp_s=0, body=b"")


@pytest.mark.requirement("WH-6")
def test_a_body_of_twenty_kilobytes_is_refused() -> None:
    with pytest.raises(ValueError, match="20 kB"):
        webhook.build_request(
            "https://a", SECRET, message_id="m", timestamp_s=0, body=b"x" * 20_000
        )


@pytest.mark.requirement("WH-7")
@pytest.mark.parametrize(
    ("status", "klass"),
    [
        (200, OutcomeClass.DONE),
        (299, OutcomeClass.DONE),
        (301, OutcomeClass.TRANSIENT),
        (401, OutcomeClass.TRANSIENT),
        (410, OutcomeClass.GONE),
        (429, OutcomeClass.TRANSIENT),
        (502, OutcomeClass.TRANSIENT),
        (0, OutcomeClass.TRANSIENT),
    ],
)
def test_each_answer_to_a_webhook_has_one_meaning(status: int, klass: OutcomeClass) -> None:
    outcome = webhook.classify_answer(status, 3.0)

    assert outcome.klass is klass
    assert (outcome.retry_after_s == 3.0) is (klass is OutcomeClass.TRANSIENT)


def story(event: Event, **changes: Any) -> Story:
    decision = decide(
        kit.order(),
        None,
        registry=kit.REGISTRY,
        admitted=True,
        containment_id="ctn_1",
        now=kit.NOW,
    )
    assert decision.containment is not None
    tasks = kit.tasks_of(decision.drafts, decision.containment)
    done = replace(tasks[0], state=TaskState.DONE, proves=Proof.EFFECTIVE)
    failed = replace(tasks[2], state=TaskState.FAILED, result=TaskResult(detail="refused (418)"))
    steps = (
        Step(task=done, target_name="Green IdP"),
        Step(task=tasks[1], target_name="Green IdP"),
        Step(task=failed, target_name="Payroll"),
        Step(task=tasks[-1], target_name="hook"),
    )
    told = Story(
        event=event,
        happened_at=kit.NOW,
        containment=decision.containment,
        causes=decision.attached,
        steps=steps,
    )
    return replace(told, **changes)


@pytest.mark.requirement("WH-6", "WH-9")
def test_an_opened_containment_is_told_with_who_why_and_what_was_done() -> None:
    document = json.loads(render_notification(story(Event.OPENED)))

    assert document["type"] == "containment.opened"
    assert document["timestamp"] == "2026-03-20T09:51:45.000Z"
    told = document["data"]
    assert told["user_id"] == kit.USER
    assert told["message"].startswith(
        "Rosa Lind is contained: risk HIGH (the device is compromised). Done: "
        "put into quarantine at Green IdP (effective); "
    )
    assert "FAILED" in told["message"]
    assert "refused (418)" in told["message"]
    assert [entry["state"] for entry in told["actions"]] == ["done", "queued", "failed"]


def test_the_user_is_told_in_plain_words_what_happens_to_them() -> None:
    text = messages.user_message(story(Event.OPENED))

    assert "signed out everywhere" in text
    assert "comes back by itself" in text
    assert "ctn_" not in text


def test_a_user_who_keeps_access_is_not_told_otherwise() -> None:
    told = story(Event.OPENED, containment=kit.containment(actions=frozenset({Action.NOTIFY})))

    assert "signed out" not in messages.user_message(told)
    assert "needs a look" in messages.message(told)


def test_a_closed_containment_is_told_to_both() -> None:
    told = story(Event.CLOSED)

    assert "no longer contained" in messages.message(told)
    assert "sign in again" in messages.user_message(told)
    quiet = replace(told, containment=kit.containment(actions=frozenset({Action.NOTIFY})))
    assert "restored" not in messages.user_message(quiet)


def test_an_update_says_what_is_new_and_what_keeps_it_open() -> None:
    told = story(Event.UPDATED, note="cleared: the laptop is clean.")

    assert "cleared: the laptop is clean. The containment stays open" in messages.message(told)


def test_a_containment_without_steps_says_so() -> None:
    assert "Nothing had to be changed" in messages.message(story(Event.OPENED, steps=()))


@pytest.mark.requirement("WH-6")
def test_even_the_longest_texts_stay_below_twenty_kilobytes() -> None:
    longest = "\x01" * 5000
    plain = story(Event.UPDATED)
    causes = tuple(
        Cause(detection_id=f"det_{number}", name=longest, issuer=longest, summary=longest)
        for number in range(200)
    )
    failed = replace(plain.steps[2].task, result=TaskResult(detail=longest))
    told = replace(
        plain,
        containment=replace(plain.containment, label=longest, trace_id="t" * 128),
        causes=causes,
        steps=(Step(task=failed, target_name=longest),) * 100,
        note=longest,
    )

    assert len(render_notification(told)) < webhook.BODY_BYTES_MAX


@pytest.mark.requirement("WH-6")
@given(
    label=st.text(max_size=5000),
    texts=st.lists(st.text(max_size=2000), max_size=60),
    copies=st.integers(0, 200),
    event=st.sampled_from(Event),
)
def test_the_body_stays_below_twenty_kilobytes(
    label: str, texts: list[str], copies: int, event: Event
) -> None:
    causes = tuple(
        Cause(detection_id=f"det_{number}", name=text, issuer=text, summary=text)
        for number, text in enumerate(texts)
    )
    plain = story(event)
    step = replace(plain.steps[2], target_name="\U0001f512" * 300)
    told = replace(
        plain,
        containment=replace(plain.containment, label=label),
        causes=causes,
        steps=(step,) * copies,
        note=label,
    )

    assert len(render_notification(told)) < webhook.BODY_BYTES_MAX
