"""Delivery rules: meaning of an attempt, time of the next one, and the circuit breaker of an endpoint."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.delivery import (
    EVIDENCE_WINDOW,
    RETRY_DELAYS,
    AnswerReason,
    AnswerReceived,
    AttemptOutcome,
    Breaker,
    Classification,
    MailAnswer,
    MailObservation,
    MailSilence,
    MailStep,
    NoAnswer,
    NoAnswerReason,
    NotSent,
    NotSentReason,
    Observation,
    RefusalReason,
    breaker_percent,
    classify,
    classify_mail,
    closed_from,
    endpoint_health,
    hold_window,
    is_evidence,
    is_open,
    next_attempt_at,
    next_hold_attempt_at,
    record,
    result_code,
    take_probe,
)

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

answered = st.builds(
    AnswerReceived,
    status=st.integers(0, 999),
    retry_after_seconds=st.none() | st.integers(0, 10**9),
    body=st.binary(max_size=60) | st.sampled_from([b'{"status":"refused"}', b'{"status":"accepted"}', b"[" * 50_000]),
    truncated=st.booleans(),
)
not_sent = st.builds(NotSent, reason=st.sampled_from(NotSentReason))
no_answer = st.builds(NoAnswer, reason=st.sampled_from(NoAnswerReason))
observations = st.one_of(answered, not_sent, no_answer)


# --- classification


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        (200, b"", AttemptOutcome.accepted, AnswerReason.taken),
        (200, b" \r\n", AttemptOutcome.accepted, AnswerReason.taken),
        (202, b"<html>thanks</html>", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"OK", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"true", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"null", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"{}", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b'{"success":true}', AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"ERROR: the database is down", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"status=refused&reason=duplicate", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"[]", AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b"[" * 50_000, AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b'{"status":"refused"}{}', AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b'{"status":"Rejected"}', AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b'{"message":"duplicate"}', AttemptOutcome.unknown, AnswerReason.not_understood),
        (204, b"", AttemptOutcome.accepted, AnswerReason.taken),
        (200, b'{"status":"accepted"}', AttemptOutcome.accepted, AnswerReason.taken),
        (200, b'{"status":"ref', AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b'"refused"', AttemptOutcome.unknown, AnswerReason.not_understood),
        (200, b'{"status":"refused","reason":"own_customer"}', AttemptOutcome.refused, RefusalReason.own_customer),
        (
            200,
            b'\xef\xbb\xbf{"status":" Refused ","reason":"DUPLICATE"}',
            AttemptOutcome.refused,
            RefusalReason.duplicate,
        ),
        (201, b'{"status":"refused","reason":"did not like it"}', AttemptOutcome.refused, RefusalReason.other),
        (200, b'{"status":"refused","reason":{"code":7}}', AttemptOutcome.refused, RefusalReason.other),
        (200, b'{"status":"refused","note":"\xff"}', AttemptOutcome.refused, RefusalReason.other),
        (301, b"", AttemptOutcome.redirect, AnswerReason.redirected),
        (302, b'{"status":"accepted"}', AttemptOutcome.redirect, AnswerReason.redirected),
        (307, b"", AttemptOutcome.redirect, AnswerReason.redirected),
        (400, b"", AttemptOutcome.refused, RefusalReason.other),
        (401, b"", AttemptOutcome.refused, RefusalReason.other),
        (404, b'{"status":"accepted"}', AttemptOutcome.refused, RefusalReason.other),
        (409, b'{"status":"refused","reason":"duplicate"}', AttemptOutcome.refused, RefusalReason.duplicate),
        (422, b'{"status":"refused","reason":"outside_area"}', AttemptOutcome.refused, RefusalReason.outside_area),
        (408, b"", AttemptOutcome.busy, AnswerReason.try_later),
        (425, b"", AttemptOutcome.busy, AnswerReason.try_later),
        (429, b"", AttemptOutcome.busy, AnswerReason.rate_limited),
        (410, b"", AttemptOutcome.gone, RefusalReason.other),
        (500, b'{"status":"accepted"}', AttemptOutcome.busy, AnswerReason.server_error),
        (503, b"", AttemptOutcome.busy, AnswerReason.server_error),
        (429, b'{"status":"refused"}', AttemptOutcome.busy, AnswerReason.rate_limited),
        (503, b'{"status":"refused"}', AttemptOutcome.busy, AnswerReason.server_error),
        (410, b'{"status":"refused","reason":"outside_area"}', AttemptOutcome.gone, RefusalReason.outside_area),
        (599, b"", AttemptOutcome.busy, AnswerReason.server_error),
        (101, b"", AttemptOutcome.unknown, AnswerReason.unmapped),
        (600, b"", AttemptOutcome.unknown, AnswerReason.unmapped),
        (0, b"", AttemptOutcome.unknown, AnswerReason.unmapped),
    ],
)
def test_an_answer_means_what_its_status_and_a_refusal_in_its_body_say(
    status: int, body: bytes, outcome: AttemptOutcome, reason: AnswerReason | RefusalReason
) -> None:
    assert classify(AnswerReceived(status=status, body=body), True) == Classification(outcome=outcome, reason=reason)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (AnswerReceived(status=200, body=b'{"status":"refused","rea', truncated=True), AnswerReason.cut_off),
        (AnswerReceived(status=200, body=b'{"status":"accepted"}', truncated=True), AnswerReason.cut_off),
        (AnswerReceived(status=200, body=b"OK", truncated=True), AnswerReason.cut_off),
        (AnswerReceived(status=200, truncated=True), AnswerReason.cut_off),
        (AnswerReceived(status=200, body=b"\x1f\x8b\x08", content_coding="gzip"), AnswerReason.compressed),
        (AnswerReceived(status=200, body=b"{}", content_coding="br"), AnswerReason.compressed),
    ],
)
def test_a_2xx_that_is_not_whole_or_not_understood_is_unknown(answer: AnswerReceived, reason: AnswerReason) -> None:
    assert classify(answer, True) == Classification(outcome=AttemptOutcome.unknown, reason=reason)


@pytest.mark.parametrize(
    "answer",
    [
        AnswerReceived(status=200, content_type="application/json"),
        AnswerReceived(status=200, body=b'{"status":"accepted"}', content_type="text/html", content_coding="identity"),
    ],
)
def test_a_whole_answer_that_is_understood_is_accepted(answer: AnswerReceived) -> None:
    assert classify(answer, True).outcome is AttemptOutcome.accepted


@pytest.mark.parametrize(
    ("observation", "code"),
    [
        (None, "no_active_endpoint"),
        (NotSent(reason=NotSentReason.dns_failed), "dns_failed"),
        (NoAnswer(reason=NoAnswerReason.timeout), "timeout"),
        (AnswerReceived(status=200, body=b'{"status":"accepted"}'), "status_200"),
        (AnswerReceived(status=200, body=b"OK"), "not_understood"),
        (AnswerReceived(status=200, body=b"<html>"), "not_understood"),
        (AnswerReceived(status=200, body=b'{"status":"refused"}'), "other"),
        (AnswerReceived(status=404), "status_404"),
        (AnswerReceived(status=500, body=b"<html>"), "status_500"),
    ],
)
def test_the_result_of_an_attempt_says_why_a_2xx_is_no_evidence(observation: Observation | None, code: str) -> None:
    assert result_code(observation) == code


@given(observations)
def test_only_a_2xx_that_is_evidence_is_called_by_its_status(observation: Observation) -> None:
    is_success = isinstance(observation, AnswerReceived) and 200 <= observation.status <= 299
    assert not is_evidence(observation) or is_success
    if is_success:
        assert result_code(observation).startswith("status_") == is_evidence(observation)


@given(answered)
def test_only_a_whole_2xx_is_ever_a_sale(answer: AnswerReceived) -> None:
    if classify(answer, True).outcome is AttemptOutcome.accepted:
        assert 200 <= answer.status <= 299
        assert not answer.truncated


@given(observations, st.booleans())
def test_a_lead_may_be_released_only_if_nothing_left_and_no_exposure_exists(
    observation: Observation, exposed: bool
) -> None:
    if classify(observation, exposed).may_release:
        assert isinstance(observation, NotSent)
        assert not exposed


@pytest.mark.parametrize("reason", NotSentReason)
def test_a_retry_after_an_exposure_that_could_not_be_sent_never_frees_the_lead(reason: NotSentReason) -> None:
    assert classify(NotSent(reason=reason), True) == Classification(outcome=AttemptOutcome.not_sent, reason=reason)


@pytest.mark.parametrize("reason", [NotSentReason.abandoned, NotSentReason.too_late])
def test_an_attempt_that_reached_the_exposure_step_never_frees_the_lead_even_on_stale_knowledge(
    reason: NotSentReason,
) -> None:
    assert not classify(NotSent(reason=reason), False).may_release


@given(observations)
def test_a_wait_that_the_endpoint_asks_for_is_kept_only_where_it_will_be_tried_again(observation: Observation) -> None:
    classified = classify(observation, True)
    if classified.retry_after_seconds is not None:
        assert classified.outcome is AttemptOutcome.busy


@given(observations)
def test_an_observation_survives_storage(observation: Observation) -> None:
    assert msgspec.json.decode(msgspec.json.encode(observation), type=Observation) == observation


# --- e-mail

_NOT_SENT, _UNKNOWN = AttemptOutcome.not_sent, AttemptOutcome.unknown


@pytest.mark.parametrize(
    ("step", "status", "outcome", "reason"),
    [
        (MailStep.connect, 421, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.connect, 554, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.hello, 502, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.starttls, 454, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.login, 421, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.login, 454, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.login, 535, _NOT_SENT, NotSentReason.mail_login_refused),
        (MailStep.sender, 421, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.sender, 452, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.sender, 530, _NOT_SENT, NotSentReason.mail_sender_refused),
        (MailStep.sender, 553, _NOT_SENT, NotSentReason.mail_sender_refused),
        (MailStep.recipient, 421, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.recipient, 450, _NOT_SENT, NotSentReason.mail_recipient_deferred),
        (MailStep.recipient, 452, _NOT_SENT, NotSentReason.mail_recipient_deferred),
        (MailStep.recipient, 552, _NOT_SENT, NotSentReason.mail_recipient_deferred),
        (MailStep.recipient, 550, _NOT_SENT, NotSentReason.mail_recipient_refused),
        (MailStep.recipient, 354, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.data, 421, _NOT_SENT, NotSentReason.mail_server_unavailable),
        (MailStep.data, 451, _NOT_SENT, NotSentReason.mail_data_refused),
        (MailStep.data, 554, _NOT_SENT, NotSentReason.mail_data_refused),
        (MailStep.content, 250, AttemptOutcome.accepted, AnswerReason.taken),
        (MailStep.content, 251, _UNKNOWN, AnswerReason.unmapped),
        (MailStep.content, 354, _UNKNOWN, AnswerReason.unmapped),
        (MailStep.content, 421, _UNKNOWN, AnswerReason.mail_deferred),
        (MailStep.content, 452, _UNKNOWN, AnswerReason.mail_deferred),
        (MailStep.content, 552, _UNKNOWN, AnswerReason.mail_content_refused),
        (MailStep.content, 554, _UNKNOWN, AnswerReason.mail_content_refused),
    ],
)
def test_an_answer_of_the_mail_server_means(
    step: MailStep, status: int, outcome: AttemptOutcome, reason: AnswerReason | NotSentReason
) -> None:
    classified = classify_mail(MailAnswer(step=step, status=status), exposed=False)
    assert (classified.outcome, classified.reason) == (outcome, reason)


mail_observations = st.one_of(
    st.builds(MailAnswer, step=st.sampled_from(MailStep), status=st.integers(0, 999)),
    st.builds(MailSilence, step=st.sampled_from(MailStep), reason=st.sampled_from(NoAnswerReason)),
    not_sent,
)


@given(observation=mail_observations, exposed=st.booleans())
def test_only_250_to_the_whole_message_is_a_sale_and_only_an_unsent_lead_may_move(
    observation: MailObservation, exposed: bool
) -> None:
    classified = classify_mail(observation, exposed)
    evidence = isinstance(observation, MailAnswer) and (observation.step, observation.status) == (MailStep.content, 250)
    assert (classified.outcome is AttemptOutcome.accepted) == evidence
    sent = not isinstance(observation, NotSent) and observation.step is MailStep.content
    assert (classified.outcome is AttemptOutcome.not_sent) == (not sent)
    if sent or exposed:
        assert not classified.may_release


@given(observation=mail_observations)
def test_faults_of_our_own_mail_server_are_not_held_against_a_business(observation: MailObservation) -> None:
    classified = classify_mail(observation, exposed=False)
    about_recipient = isinstance(observation, MailAnswer) and observation.step is MailStep.recipient
    if endpoint_health(classified) is False and not isinstance(observation, NotSent):
        assert about_recipient or observation.step is MailStep.content


# --- back-off


def test_a_held_lead_is_tried_at_0_1_and_4_seconds_and_then_released() -> None:
    waits = [
        next_hold_attempt_at(attempts, reason=NotSentReason.connect_refused, held_at=NOW, now=NOW)
        for attempts in range(5)
    ]
    assert waits == [NOW, NOW + timedelta(seconds=1), NOW + timedelta(seconds=4), None, None]


def test_a_lead_is_never_held_longer_than_two_minutes_without_an_exposure() -> None:
    late = NOW + timedelta(seconds=119.5)
    assert next_hold_attempt_at(1, reason=NotSentReason.connect_timeout, held_at=NOW, now=late) is None


@pytest.mark.parametrize(
    "reason", [NotSentReason.url_refused, NotSentReason.address_refused, NotSentReason.tls_certificate_expired]
)
def test_an_obstacle_that_seconds_cannot_remove_releases_at_once(reason: NotSentReason) -> None:
    assert next_hold_attempt_at(1, reason=reason, held_at=NOW, now=NOW) is None


@pytest.mark.parametrize(
    ("hold_seconds", "patience_left", "held"),
    [
        (120, 3_600, 120),
        (900, 3_600, 900),
        (900, 300, 300),
        (900, 0, 120),
        (900, -60, 120),
    ],
)
def test_a_lead_is_held_longer_for_people_within_the_patience_that_is_left(
    hold_seconds: int, patience_left: int, held: int
) -> None:
    assert hold_window(hold_seconds, timedelta(seconds=patience_left)) == timedelta(seconds=held)


def _wait(attempts: int, retry_after: int | None = None, seed: str = "a") -> float:
    at = next_attempt_at(attempts, exposed_at=NOW, now=NOW, retry_after_seconds=retry_after, seed=seed)
    assert at is not None
    return (at - NOW).total_seconds()


@given(st.integers(0, 30), st.text(max_size=20))
def test_waits_keep_to_the_table_within_a_fifth_and_stay_hourly_after_it(attempts: int, seed: str) -> None:
    base = (*RETRY_DELAYS, *[3600] * 30)[attempts]
    assert base * 0.8 <= _wait(attempts, seed=seed) <= base * 1.2 + 1e-6
    assert _wait(attempts, seed=seed) == _wait(attempts, seed=seed)


def test_attempts_that_failed_together_do_not_come_back_together() -> None:
    assert len({_wait(5, seed=f"assignment {n}") for n in range(100)}) == 100


@given(st.integers(0, 12), st.integers(-10, 10**12))
def test_an_endpoint_may_ask_for_a_longer_wait_up_to_15_minutes_and_never_for_a_shorter_one(
    attempts: int, requested: int
) -> None:
    table = _wait(attempts)
    assert _wait(attempts, requested) == max(table, min(requested, 900))


def test_the_same_business_is_tried_until_24_hours_after_the_exposure_and_not_beyond() -> None:
    moments: list[datetime] = []
    at: datetime | None = NOW
    while at is not None:
        moments.append(at)
        at = next_attempt_at(len(moments), exposed_at=NOW, now=at, retry_after_seconds=None, seed="x")
    assert moments[-1] <= NOW + EVIDENCE_WINDOW
    assert 24 <= len(moments) <= 36


# --- breaker


def _after(results: str, breaker: Breaker | None = None, now: datetime = NOW) -> Breaker:
    """Return the breaker after results written as a string: `+` for a success, `-` for a failure."""
    breaker = breaker or Breaker()
    for result in results:
        breaker = record(breaker, result == "+", now)
    return breaker


@pytest.mark.parametrize(
    ("results", "opens"),
    [
        ("----", False),
        ("-----", True),
        ("----+----", False),
        ("-+" * 9 + "+-", True),
        ("-++" * 30, False),
        ("--+" * 6, True),
        ("+" * 100, False),
    ],
)
def test_five_failures_in_a_row_or_half_of_twenty_open_the_breaker(results: str, opens: bool) -> None:
    assert is_open(_after(results), NOW) is opens


@given(st.text("+-", max_size=80))
def test_a_closed_breaker_has_fewer_than_five_failures_in_a_row_and_fewer_than_ten_of_twenty(results: str) -> None:
    breaker = Breaker()
    since_closed = ""
    for result in results:
        breaker = record(breaker, result == "+", NOW)
        since_closed += result
        if is_open(breaker, NOW):
            assert since_closed.endswith("-----") or since_closed[-20:].count("-") >= 10
            break
        assert not since_closed.endswith("-----")
        assert since_closed[-20:].count("-") < 10


@given(st.text("+-", max_size=40))
def test_twenty_good_results_restore_perfect_health_and_another_changes_nothing(results: str) -> None:
    breaker = _after(results)
    if not is_open(breaker, NOW):
        healthy = _after("+" * 20, breaker)
        assert healthy == Breaker()
        assert record(healthy, True, NOW) is healthy


@pytest.mark.parametrize(
    ("results", "percent"),
    [("", 0), ("--", 0), ("---", 50), ("----", 70), ("-----", 100), ("-+" * 5, 50), ("-+" * 7, 70), ("-+" * 9, 90)],
)
def test_an_owner_is_warned_before_the_breaker_opens(results: str, percent: int) -> None:
    assert breaker_percent(_after(results), NOW) == percent


@given(st.text("+-", max_size=60))
def test_only_an_open_breaker_is_at_100_percent(results: str) -> None:
    breaker = _after(results)
    assert (breaker_percent(breaker, NOW) == 100) is is_open(breaker, NOW)


def test_results_that_arrive_during_the_cool_down_change_nothing() -> None:
    opened = _after("-----")
    assert _after("-+--++", opened) is opened


def test_the_cool_down_doubles_from_30_seconds_to_15_minutes() -> None:
    breaker, now, waits = _after("-----"), NOW, []
    for _ in range(40):
        assert breaker.open_until is not None
        waits.append((breaker.open_until - now).total_seconds())
        now = breaker.open_until
        breaker = record(breaker, False, now)
    assert waits[:7] == [30, 60, 120, 240, 480, 900, 900]
    assert waits[-1] == 900


def test_after_the_cool_down_one_probe_decides_and_everybody_else_waits_for_it() -> None:
    opened = _after("-----")
    then = NOW + timedelta(seconds=30)
    assert take_probe(opened, NOW) is opened
    assert not is_open(opened, then)
    probing = take_probe(opened, then)
    assert is_open(probing, then)
    assert take_probe(probing, then) is probing
    assert closed_from(probing) == then + timedelta(seconds=25)
    assert record(probing, True, then) == Breaker()
    failed = record(probing, False, then)
    assert failed.open_until == then + timedelta(seconds=60)
    assert is_open(failed, then)


def test_a_probe_whose_result_never_comes_gives_the_next_one_its_turn() -> None:
    probing = take_probe(_after("-----"), NOW + timedelta(seconds=30))
    assert not is_open(probing, NOW + timedelta(seconds=55))
    assert is_open(take_probe(probing, NOW + timedelta(seconds=55)), NOW + timedelta(seconds=55))


def test_a_closed_breaker_needs_no_probe() -> None:
    closed = _after("-")
    assert take_probe(closed, NOW) is closed


@given(st.text("+-", max_size=30))
def test_a_breaker_survives_storage_and_a_healthy_one_is_stored_as_nothing(results: str) -> None:
    breaker = _after(results)
    assert msgspec.json.decode(msgspec.json.encode(breaker), type=Breaker) == breaker
    assert msgspec.json.encode(Breaker()) == b"{}"


@pytest.mark.parametrize(
    ("observation", "health"),
    [
        (AnswerReceived(status=200), True),
        (AnswerReceived(status=422), True),
        (AnswerReceived(status=503), False),
        (AnswerReceived(status=302), False),
        (NoAnswer(reason=NoAnswerReason.timeout), False),
        (NotSent(reason=NotSentReason.connect_refused), False),
        (NotSent(reason=NotSentReason.tls_certificate_expired), False),
        (NotSent(reason=NotSentReason.abandoned), None),
        (NotSent(reason=NotSentReason.breaker_open), None),
        (NotSent(reason=NotSentReason.too_late), None),
        (AnswerReceived(status=410), None),
    ],
)
def test_a_refusal_speaks_for_the_endpoint_and_our_own_obstacles_say_nothing(
    observation: Observation, health: bool | None
) -> None:
    assert endpoint_health(classify(observation, True)) is health
