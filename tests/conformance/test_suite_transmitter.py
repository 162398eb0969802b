"""Negative control: the suite finds every rule that a transmitter breaks, and only then fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from jwcrypto.jwk import JWK

from conformance.suite.checks import Outcome
from conformance.suite.http import Trust
from conformance.suite.report import Report
from conformance.suite.transmitter.options import (
    Credentials,
    Limits,
    Options,
    Profile,
    PushPlace,
    Trigger,
)
from conformance.suite.transmitter.run import CHECKS, run_transmitter
from hub.certificates import make_development_certificate
from runtime.clock import SystemClock
from tests.conformance.small_transmitter import OTHER, SECRET, SmallTransmitter

LIMITS: Final = Limits(request_s=20.0, event_s=3.0, quiet_s=0.5, long_poll_s=30.0, check_s=60.0)
SSF, INTEROP = Profile.SSF, Profile.CAEP_INTEROP

#: what is broken, the check that has to see it, and the requirement it has to name
FAULTS: Final = (
    ("version_dot", "metadata_values", "SSF-META-1", SSF),
    ("version_dot", "interop_metadata", "INT-3", INTEROP),
    ("no_oauth_scheme", "interop_metadata", "INT-9", INTEROP),
    ("empty_array", "metadata_members", "SSF-META-22", SSF),
    ("http_endpoint", "metadata_members", "SSF-META-6", SSF),
    ("wrong_issuer", "metadata_location", "CT-1", SSF),
    ("metadata_as_text", "metadata_location", "SSF-META-21", SSF),
    ("no_methods", "delivery_method_offered", "CTC-2", SSF),
    ("private_key", "published_keys", "SET-35", SSF),
    ("same_kid", "published_keys", "SET-35", SSF),
    ("tls_1_1", "tls_versions", "CTC-3", SSF),
    ("token_type", "client_credentials", "CTC-4", SSF),
    ("any_client", "client_authentication", "OA-1", SSF),
    ("other_server", "published_oauth_metadata", "OA-4", SSF),
    ("revokes_nothing", "revoked_token", "OA-10", SSF),
    ("no_challenge", "challenges", "INT-29", SSF),
    ("anyone", "challenges", "INT-28", SSF),
    ("token_in_query", "token_in_the_query", "INT-27", SSF),
    ("reader_manages", "scopes", "INT-25", SSF),
    ("list_404", "clean_up", "SSF-OP-11", SSF),
    ("list_is_object", "clean_up", "SSF-OP-11", SSF),
    ("create_200", "create", "SSF-OP-1", SSF),
    ("no_aud", "create", "CT-2", SSF),
    ("configured_iss", "create", "CTC-8", SSF),
    ("delivers_all", "create", "SSF-CFG-6", SSF),
    ("read_is_array", "read", "SSF-OP-10", SSF),
    ("foreign_stream", "read", "SSF-AUTH-2", SSF),
    ("create_same", "create_twice", "SSF-OP-2", SSF),
    ("takes_foreign_values", "update", "SSF-OP-21", SSF),
    ("patch_replaces", "update", "SSF-OP-20", SSF),
    ("change_202", "update", "SSF-OP-24", SSF),
    ("put_merges", "replace", "SSF-OP-30", SSF),
    ("delete_again", "delete", "CT-15", SSF),
    ("broken_is_500", "create_with_broken_input", "CT-3", SSF),
    ("anyone", "create_with_invalid_token", "CT-4", SSF),
    ("anyone", "read_with_invalid_token", "CT-6", SSF),
    ("anyone", "replace_with_invalid_token", "CT-13", SSF),
    ("broken_is_500", "update_with_invalid_body", "CT-10", SSF),
    ("broken_is_500", "replace_with_invalid_body", "CT-12", SSF),
    ("body_before_token", "order_of_checks", "SSF-OP-52", SSF),
    ("status_stays", "status_update", "SSF-STAT-7", SSF),
    ("disabled_stays", "status_update", "CT-2", SSF),
    ("subject_codes", "subjects", "SSF-SUBJ-1", SSF),
    ("subject_codes", "subjects", "SSF-SUBJ-3", SSF),
    ("verify_200", "verification", "SSF-VER-1", SSF),
    ("state_lost", "verification", "CTS-12", SSF),
    ("sub_id_else", "verification", "CTS-11", SSF),
    ("sub_claim", "verification", "CTS-5", SSF),
    ("exp_claim", "verification", "SET-8", SSF),
    ("typ_jwt", "verification", "CTS-3", SSF),
    ("iss_slash", "verification", "CTS-6", SSF),
    ("iat_future", "verification", "CTS-7", SSF),
    ("iat_fraction", "verification", "CTS-7", SSF),
    ("no_aud_claim", "verification", "CTS-8", SSF),
    ("no_sub_id", "verification", "SET-9", SSF),
    ("null_event", "verification", "SET-2", SSF),
    ("other_key", "verification", "CTS-1", SSF),
    ("unknown_kid", "verification", "CTS-1", SSF),
    ("alg_none", "verification", "SET-32", SSF),
    ("es256", "verification", "CTS-2", INTEROP),
    ("two_events", "verification", "CTS-4", INTEROP),
    ("state_invented", "verification_without_state", "SSF-VER-3", SSF),
    ("interval_longer", "verification_too_often", "SSF-VER-7", SSF),
    ("paused_sends", "paused_stream_is_silent", "SSF-STAT-4", SSF),
    ("disabled_keeps", "disabled_stream_keeps_nothing", "SSF-STAT-6", SSF),
    ("poll_204", "empty_poll", "POLL-8", SSF),
    ("one_poll_url", "empty_poll", "POLL-2", SSF),
    ("sets_are_array", "empty_poll", "POLL-8", SSF),
    ("acks_late", "poll_and_acknowledge", "POLL-10", SSF),
    ("interval_longer", "poll_and_acknowledge", "CT-19", SSF),
    ("ignores_acks+never_hides", "poll_and_acknowledge", "CT-19", SSF),
    ("poll_204", "acknowledge_only", "CT-20", SSF),
    ("never_waits", "long_poll", "POLL-6", SSF),
    ("no_limit", "pages_and_several_pollers", "POLL-4", SSF),
    ("ignores_errors+never_hides", "reported_errors", "POLL-12", SSF),
    ("anyone", "poll_refusals", "SSF-AUTH-3", SSF),
    ("no_challenge", "poll_refusals", "POLL-20", SSF),
    ("push_as_form", "push_request", "PUSH-2", SSF),
    ("no_accept", "push_request", "PUSH-3", SSF),
    ("no_header", "push_request", "PUSH-5", SSF),
    ("bearer_twice", "push_request", "CTC-9", SSF),
    ("header_anyway", "push_without_authorization", "CT-21", SSF),
    ("new_jti", "push_again_after_500", "SET-5", SSF),
    ("trusts_anyone", "push_to_untrusted_certificate", "PUSH-6", SSF),
    ("milliseconds", "caep_events", "CAEP-1", SSF),
    ("reason_as_text", "caep_events", "CAEP-3", SSF),
)
#: readings of the standards and SHOULDs, which are warnings
WEAK: Final = (
    ("probing", "subject_refusals", "SSF-SUBJ-5"),
    ("never_hides", "pages_and_several_pollers", "POLL-23"),
    ("no_retry", "push_again_after_500", "PUSH-44"),
    ("no_patience", "push_again_after_429", "PUSH-44"),
    ("retries_400", "push_not_again_after_400", "PUSH-41"),
    ("follows_redirects", "push_follows_no_redirect", "PUSH-45"),
    ("pushes_deleted", "push_ends_with_the_stream", "SSF-OP-41"),
)


@dataclass
class Bench:
    """The certificate that both sides use."""

    folder: Path

    def server(self, *, old: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        if old:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        return context

    @asynccontextmanager
    async def transmitter(self, *faults: str) -> AsyncIterator[SmallTransmitter]:
        trust = ssl.create_default_context(cafile=self.folder / "ca.pem")
        tls = self.server(old="tls_1_1" in faults)
        async with SmallTransmitter(*faults, tls=tls, trust=trust) as transmitter:
            yield transmitter

    def options(self, url: str, *only: str, profile: Profile = SSF) -> Options:
        return Options(
            issuer=url,
            credentials=Credentials(client_id="suite", client_secret=SECRET),
            stranger_token=OTHER,
            trust=Trust(ca=self.folder / "ca.pem"),
            profile=profile,
            push=PushPlace(certificate=self.folder / "cert.pem", key=self.folder / "key.pem"),
            trigger=Trigger(url=f"{url}/emit"),
            limits=LIMITS,
            only=frozenset(only),
        )

    async def run(
        self, fault: str, *only: str, profile: Profile = SSF, strict: bool = False
    ) -> Report:
        async with self.transmitter(*filter(None, fault.split("+"))) as transmitter:
            options = self.options(transmitter.url, *only, profile=profile)
            results = await run_transmitter(options, tell=lambda _: None)
        return Report(role="transmitter", target="", strict=strict, results=tuple(results))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("tls")
    make_development_certificate(folder, ["127.0.0.1"], now=SystemClock().now())
    return Bench(folder)


@pytest.mark.parametrize("profile", [SSF, INTEROP])
async def test_a_sound_transmitter_passes_all_of_it(bench: Bench, profile: Profile) -> None:
    report = await bench.run("", profile=profile, strict=True)

    bad = {
        name: told
        for name, told in report.by_requirement.items()
        if told[0] in {Outcome.FAIL, Outcome.WARN}
    }
    assert not bad
    assert not report.failed


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(("fault", "check", "requirement_id", "profile"), FAULTS)
async def test_a_broken_rule_is_found_and_named(
    bench: Bench, fault: str, check: str, requirement_id: str, profile: Profile
) -> None:
    report = await bench.run(fault, check, profile=profile)

    assert report.failed
    assert report.by_requirement[requirement_id][0] is Outcome.FAIL


@pytest.mark.parametrize(("fault", "check", "requirement_id"), WEAK)
async def test_a_weak_rule_is_a_warning_and_fails_when_strict(
    bench: Bench, fault: str, check: str, requirement_id: str
) -> None:
    report = await bench.run(fault, check)

    assert report.by_requirement[requirement_id][0] is Outcome.WARN
    assert replace(report, strict=True).failed


def test_every_check_says_what_it_does_and_is_found_out_by_a_fault() -> None:
    assert len({one.name for one in CHECKS}) == len(CHECKS)
    assert all(one.title and one.requirement_ids for one in CHECKS)
    found_out = {check for _, check, *_ in (*FAULTS, *WEAK)}
    assert {one.name for one in CHECKS} - found_out <= {
        # Faults of these show in the checks above as well, or they only publish what is optional.
        "metadata_of_nobody", "create_with_little", "create_refusals",
        "update_with_invalid_token", "update_unknown_stream", "replace_unknown_stream", "status",
        "status_refusals", "verification_refusals", "long_poll_ends", "what_arrived",
    }  # fmt: skip


@pytest.mark.parametrize(("fault", "outcome"), [("", Outcome.PASS), ("replayed", Outcome.WARN)])
async def test_a_client_with_a_key_sends_each_assertion_once(
    bench: Bench, tmp_path: Path, fault: str, outcome: Outcome
) -> None:
    file = tmp_path / "key.json"
    key = JWK.generate(kty="EC", crv="P-256", kid="c1", use="sig", alg="ES256")
    file.write_text(key.export_private())
    async with bench.transmitter(*filter(None, [fault])) as transmitter:
        options = bench.options(transmitter.url, "client_authentication", "scopes")
        options = replace(options, credentials=Credentials(client_id="suite", client_key=file))
        results = await run_transmitter(options, tell=lambda _: None)
        file.write_text("{}")
        unusable = await run_transmitter(options, tell=lambda _: None)

    report = Report(role="transmitter", target="", strict=False, results=tuple(results))
    assert report.by_requirement["OA-2"][0] is outcome
    assert not report.failed
    assert {result.outcome for result in unusable} == {Outcome.FAIL}
    assert "signing key" in unusable[0].findings[0].text


async def test_a_dead_peer_is_a_failure_and_no_hang(bench: Bench) -> None:
    async with bench.transmitter() as transmitter:
        url = transmitter.url
    results = await run_transmitter(bench.options(url), tell=lambda _: None)

    report = Report(role="transmitter", target=url, strict=False, results=tuple(results))
    assert report.failed
    assert len(results) > 50
    assert {result.outcome for result in results} == {Outcome.FAIL}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
        b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
        b"\x00\xff" * 1_000,
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{",
    ],
)
async def test_a_hostile_peer_is_a_failure_and_no_hang(bench: Bench, answer: bytes) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=bench.server())
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        options = replace(
            bench.options(url, "metadata_location", "create"),
            credentials=Credentials(token="x"),
        )
        results = await run_transmitter(options, tell=lambda _: None)

    assert {result.outcome for result in results} == {Outcome.FAIL}
