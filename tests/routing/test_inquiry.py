from datetime import date, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.inquiry import (
    CLOCK_TOLERANCE,
    SENDER_SKEW,
    Budget,
    Facts,
    InquiryFaultCode,
    NeedValue,
    Timing,
    Touch,
    check_budget,
    check_consent_proof,
    check_consent_time,
    check_need_fields,
    check_submitted_at,
    check_timing,
    check_touches,
    cut_query,
    is_later,
)
from tests.builders.inquiries import EDUCATION_NEEDS, NOW, ROOFING_NEEDS, education_facts, roofing_facts

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (timedelta(0), []),
        (-5 * MINUTE, []),
        (-6 * MINUTE, [InquiryFaultCode.submitted_at_in_future]),
        (90 * DAY, []),
        (91 * DAY, [InquiryFaultCode.submitted_at_too_old]),
    ],
)
def test_an_inquiry_is_from_the_last_ninety_days(ago: timedelta, expected: list[InquiryFaultCode]) -> None:
    assert [flaw.code for flaw in check_submitted_at(NOW - ago, NOW)] == expected


@pytest.mark.parametrize(
    ("age", "submitted", "expected"),
    [
        (2 * MINUTE, MINUTE, []),
        (-6 * MINUTE, MINUTE, [InquiryFaultCode.consent_in_future]),
        (MINUTE, 2 * MINUTE, [InquiryFaultCode.consent_after_submission]),
        (-4 * MINUTE, None, []),
        (95 * DAY, 6 * DAY, []),
        (97 * DAY, 6 * DAY, [InquiryFaultCode.consent_too_old]),
        (91 * DAY, None, [InquiryFaultCode.consent_too_old]),
    ],
)
def test_consent_comes_before_the_submission_and_not_long_before(
    age: timedelta, submitted: timedelta | None, expected: list[InquiryFaultCode]
) -> None:
    submitted_at = None if submitted is None else NOW - submitted
    assert [flaw.code for flaw in check_consent_time(NOW - age, submitted_at, NOW)] == expected


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (timedelta(seconds=301), False),
        (timedelta(seconds=302), True),
        (timedelta(seconds=300, milliseconds=412), False),
        (timedelta(seconds=301, milliseconds=1), True),
        (timedelta(seconds=-1), False),
    ],
)
def test_a_time_is_later_when_neither_skew_nor_precision_explain_it(ahead: timedelta, expected: bool) -> None:
    assert is_later(NOW + ahead, NOW, CLOCK_TOLERANCE) is expected


def test_times_with_thousandths_are_compared_to_the_thousandth() -> None:
    exact = NOW.replace(microsecond=500_000)
    assert not is_later(exact + timedelta(milliseconds=2_001), exact, SENDER_SKEW)
    assert is_later(exact + timedelta(milliseconds=2_002), exact, SENDER_SKEW)


@pytest.mark.parametrize(
    ("text", "page", "ip", "expected"),
    [
        ("Yes", "https://example.com/a", "192.0.2.1", []),
        ("Yes", "http://example.com", "2001:db8::1", []),
        (" \n", "https://example.com", None, [InquiryFaultCode.consent_text_empty]),
        ("Yes", None, None, [InquiryFaultCode.consent_page_missing]),
        ("Yes", "example.com/a", None, [InquiryFaultCode.consent_page_invalid]),
        ("Yes", "javascript:alert(1)", None, [InquiryFaultCode.consent_page_invalid]),
        ("Yes", "https://[::1", None, [InquiryFaultCode.consent_page_invalid]),
        ("Yes", "https://", None, [InquiryFaultCode.consent_page_invalid]),
        ("Yes", "https://example.com", "999.1.1.1", [InquiryFaultCode.consent_ip_invalid]),
        ("Yes", "https://example.com", "203.0.113.9, 70.41.3.18,10.0.0.1", []),
        ("Yes", "https://example.com", "2001:db8::7 , 10.0.0.1", []),
        ("Yes", "https://example.com", "unknown, 203.0.113.9", [InquiryFaultCode.consent_ip_invalid]),
        ("Yes", "https://example.com", ",203.0.113.9", [InquiryFaultCode.consent_ip_invalid]),
        (
            "",
            "",
            "",
            [
                InquiryFaultCode.consent_text_empty,
                InquiryFaultCode.consent_page_missing,
                InquiryFaultCode.consent_ip_invalid,
            ],
        ),
    ],
)
def test_consent_can_be_proved(text: str, page: str | None, ip: str | None, expected: list[InquiryFaultCode]) -> None:
    assert [flaw.code for flaw in check_consent_proof(text, page, ip)] == expected


def test_a_budget_is_in_the_verticals_currency_and_the_right_way_round() -> None:
    flaws = list(check_budget(Budget(minor=2, maximum_minor=1, currency="EUR"), "USD"))
    assert [(flaw.path[-1], flaw.code) for flaw in flaws] == [
        ("currency", InquiryFaultCode.currency_not_accepted),
        ("maximum_minor", InquiryFaultCode.out_of_range),
    ]
    assert not list(check_budget(Budget(minor=1, maximum_minor=1, currency="USD"), "USD"))


def test_timing_is_days_or_a_date_but_not_both() -> None:
    assert not list(check_timing(Timing(within_days=3)))
    assert [f.code for f in check_timing(Timing(within_days=3, not_before=date(2027, 1, 1)))] == [
        InquiryFaultCode.timing_ambiguous
    ]


def test_touches_have_happened_and_are_told_briefly() -> None:
    touches = (
        Touch(kind="click", at=NOW - MINUTE, detail=""),
        Touch(kind="click", at=NOW + 6 * MINUTE, detail=""),
        Touch(kind="click", at=NOW - 4_000 * DAY, detail="x" * 201),
    )
    assert [(flaw.path, flaw.code) for flaw in check_touches(touches, NOW)] == [
        (("touches", 1, "at"), InquiryFaultCode.touch_in_future),
        (("touches", 2, "at"), InquiryFaultCode.out_of_range),
        (("touches", 2, "detail"), InquiryFaultCode.too_long),
    ]


@pytest.mark.parametrize(
    ("detail", "cut"),
    [
        ("/roof?email=a@example.com&name=Ann Lee", "/roof"),
        ("https://example.com/a#email=a@example.com", "https://example.com/a"),
        ("/a#section", "/a#section"),
        ("asked: how much? said yes", "asked: how much? said yes"),
        ("", ""),
    ],
)
def test_the_query_of_an_address_is_cut(detail: str, cut: str) -> None:
    assert cut_query(detail) == cut


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"roof_type": "tile", "square_metres": 80, "owns_home": True}, []),
        ({}, [("roof_type", InquiryFaultCode.need_field_missing)]),
        ({"roof_type": "straw"}, [("roof_type", InquiryFaultCode.value_not_allowed)]),
        ({"roof_type": "tile", "colour": "red"}, [("colour", InquiryFaultCode.need_field_unknown)]),
        ({"roof_type": 1}, [("roof_type", InquiryFaultCode.need_field_type)]),
        ({"roof_type": "tile", "square_metres": True}, [("square_metres", InquiryFaultCode.need_field_type)]),
        ({"roof_type": "tile", "square_metres": 0}, [("square_metres", InquiryFaultCode.out_of_range)]),
        ({"roof_type": "tile", "owns_home": "yes"}, [("owns_home", InquiryFaultCode.need_field_type)]),
    ],
)
def test_need_fields_are_those_of_the_vertical(
    fields: dict[str, NeedValue], expected: list[tuple[str, InquiryFaultCode]]
) -> None:
    assert [(flaw.path[-1], flaw.code) for flaw in check_need_fields(fields, ROOFING_NEEDS)] == expected


@given(st.dictionaries(st.text(), st.text(min_size=8) | st.integers() | st.booleans()))
def test_no_sentence_repeats_a_value(fields: dict[str, NeedValue]) -> None:
    for flaw in check_need_fields(fields, EDUCATION_NEEDS):
        assert not any(isinstance(value, str) and value in flaw.detail for value in fields.values())


def test_facts_survive_json_unchanged() -> None:
    for facts in (roofing_facts(), education_facts()):
        assert msgspec.json.decode(msgspec.json.encode(facts), type=Facts) == facts
