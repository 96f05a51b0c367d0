"""Text as people type it."""
# ruff: noqa: RUF001 - characters that look alike are the subject

import pytest

from marketplace.text.characters import clean_line, clean_text, is_visible, mask_cards, read_number

VISIBLE = [
    ("李", True), ("😀", True), ("Zo\u0301e", True), ("x\u3164", True), ("", False), (" \t\u00a0\u3000", False),
    ("\u3164", False), ("\u115f\u1160\uffa0", False), ("\u2800", False), ("\u200b\u200d\ufeff\u2060", False),
    ("\u00ad\u034f", False), ("\ufe0f\U000e0041", False), ("\u200d \u0301", False), ("\u0301\u0489", False),
    ("\x7f\x85", False), ("\ue000", False), ("\ufffc", False), ("\U0001d159", False), ("\U00013441", False),
]  # fmt: skip
CARD = "4111 1111 1111 1111"
BETWEEN = ("", "\t", "\n", "\r\n", "\u00a0", "\u2009", "\u3000", " - ", "--", "  \t ",
           "/", ".", ", ", "_", "·", "|", "\u200b",
           "\u2060", "\u00ad", "–", "\u2212", "\u3164")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Robin \n\t Example ", "Robin Example"),
        ("Robin\u202eelpmaxE", "RobinelpmaxE"),
        ("Rob\u0085in\u007f", "Robin"),
        ("{{7*7}}", "{{7*7}}"),
        ("=HYPERLINK(1)", "=HYPERLINK(1)"),
        ("Zoë \U0001f469\u200d\U0001f52c", "Zoë \U0001f469\u200d\U0001f52c"),
    ],
)
def test_a_line_loses_what_cannot_be_seen_and_nothing_else(text: str, cleaned: str) -> None:
    assert clean_line(text) == cleaned


def test_a_text_keeps_its_lines() -> None:
    assert clean_text(" one\n\ttwo\u2066 ") == "one\n\ttwo"


@pytest.mark.parametrize(("text", "expected"), VISIBLE)
def test_a_name_has_something_visible(text: str, expected: bool) -> None:
    assert is_visible(text) is expected


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("card 4111 1111 1111 1111 ok", "card ••••••••••••••••••• ok"),
        ("4111111111111111", "••••••••••••••••"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("call +1 312 555 0100", "call +1 312 555 0100"),
        ("378282246310005 and 5555555555554444", "••••••••••••••• and ••••••••••••••••"),
    ],
)
def test_digits_that_could_be_a_card_are_masked(text: str, masked: str) -> None:
    assert mask_cards(text) == masked


def test_a_number_beside_a_card_never_hides_it() -> None:
    for text in ("312 555 0100 4111 1111 1111 1111", "4111-1111-1111-1111 312 555 0100"):
        assert "1111" not in mask_cards(text)


@pytest.mark.parametrize("between", BETWEEN)
def test_whatever_stands_between_the_groups_a_card_is_masked(between: str) -> None:
    masked = mask_cards(f"card {CARD.replace(' ', between)} ok")
    assert masked == f"card {'•' * (16 + 3 * len(between))} ok"
    assert mask_cards(f"{CARD[:-1]}2".replace(" ", between)) == f"{CARD[:-1]}2".replace(" ", between)


@pytest.mark.parametrize("zero", ["０", "٠", "۰", "०", "𝟎"])
def test_a_card_in_the_digits_of_any_script_is_masked(zero: str) -> None:
    foreign = "".join(chr(ord(zero) + int(digit)) if digit != " " else digit for digit in CARD)
    assert mask_cards(foreign) == "•" * len(CARD)


def test_two_cards_without_a_word_between_are_both_masked() -> None:
    assert mask_cards("4111 1111 1111 1111 5555 5555 5555 4444") == "•" * 39
    assert not any(digit in mask_cards("4111111111111111, 378282246310005") for digit in "0123456789")


@pytest.mark.parametrize(
    ("text", "dialled", "extension"),
    [
        ("(312) 555-0100", "3125550100", None),
        ("(+1) 312.555.0100", "+13125550100", None),
        ("\u202a+1\u00a0312–555—0100\u202c", "+13125550100", None),
        ("+1 312\u200b555\u00ad0100", "+13125550100", None),
        ("３１２ー５５５ー０１００", "3125550100", None),
        ("＋１（３１２）５５５－０１００", "+13125550100", None),
        ("٣١٢٥٥٥٠١٠٠", "3125550100", None),
        ("३१२ ५५५ ०१००", "3125550100", None),
        ("tel:+1-312-555-0100;ext=45", "+13125550100", "45"),
        ("312 555 0100 ext. 45", "3125550100", "45"),
        ("312 555 0100 Extensión 45", "3125550100", "45"),
        ("312 555 0100 x45", "3125550100", "45"),
        ("312 555 0100 #45", "3125550100", "45"),
        ("312 555 0100 доб. 45", "3125550100", "45"),
        ("312 555 0100,,45", "3125550100", "45"),
    ],
)
def test_a_number_is_read_as_people_write_it(text: str, dialled: str, extension: str | None) -> None:
    number = read_number(text)
    assert number is not None
    assert (number.dialled, number.extension) == (dialled, extension)
    assert "555" not in repr(number)


@pytest.mark.parametrize(
    "text",
    [
        "club 908 conyers", "1-800-FLOWERS", "call 312 555 0100", "312 555 0100 home", "312-555-O1OO", "3one2 555 0100",
        "312 555 0100 ext", "312 555 0100 ext. forty", "312 555 0100 or 312 555 0101", "+", "", "()", "½312 555 0100",
        "312+555 0100", "312@5550100", "３１２ｃｌｕｂ５５５", "1" * 41,
    ],
)  # fmt: skip
def test_a_text_with_anything_else_is_no_number(text: str) -> None:
    assert read_number(text) is None
