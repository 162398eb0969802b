"""Secrets at rest: only the key that sealed a text opens it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.common import json_decode
from jwcrypto.jwe import JWE

from runtime.secrets import SecretBox

BOX = SecretBox("k" * 32)
# 24 bytes with the lead: no unused bits at the end of the ciphertext's base64.
SEALED = BOX.seal("a secret of some length")

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=200)


@given(texts)
def test_what_was_sealed_opens(text: str) -> None:
    assert BOX.open(BOX.seal(text)) == text


def test_sealing_twice_gives_two_texts_and_neither_shows_the_secret() -> None:
    first, second = BOX.seal("hunter2 hunter2"), BOX.seal("hunter2 hunter2")
    assert first != second
    assert "hunter2" not in first


def test_the_sealed_form_is_a_compact_jwe_with_direct_aes_gcm() -> None:
    token = JWE()
    token.deserialize(BOX.seal("x"))
    header = json_decode(token.objects["protected"])
    assert (header["alg"], header["enc"]) == ("dir", "A256GCM")


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(ValueError, match="SECRET_KEY"):
        SecretBox("K" * 32).open(BOX.seal("x"))


def test_the_same_key_in_another_process_opens_it() -> None:
    assert SecretBox("k" * 32).open(BOX.seal("x")) == "x"


@given(st.data())
def test_a_changed_character_is_noticed(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(SEALED) - 2))
    other = data.draw(st.sampled_from([c for c in "AZaz09-_." if c != SEALED[place]]))
    changed = SEALED[:place] + other + SEALED[place + 1 :]
    with pytest.raises(ValueError, match="SECRET_KEY"):
        BOX.open(changed)


@given(st.text(max_size=100))
def test_opening_any_text_raises_value_error_only(text: str) -> None:
    with pytest.raises(ValueError, match="SECRET_KEY"):
        BOX.open(text)


def test_a_short_key_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="SECRET_KEY: at least 32"):
        SecretBox("k" * 31)
