"""Canaries are found wherever they turn up, and only they."""

from marketplace.demo import contacts
from marketplace.runtime import clock
from tests.harness.canaries import Aviary


def test_a_canary_is_found_in_whatever_case_and_by_whichever_field() -> None:
    aviary = Aviary(seed=7)
    canary = aviary.canary(4_711)
    assert canary.phone is not None
    found_in = (
        canary.token, canary.token.upper(), f"{canary.token}@example.com", canary.phone, canary.phone[1:],
        canary.phone[2:], canary.phone.replace("+", "%2B"), canary.body("key", clock.now()).decode(),
    )  # fmt: skip
    for text in found_in:
        assert aviary.find(f'{{"x":"{text}"}}'.encode()) == {4_711}, text


def test_a_token_of_another_run_or_with_a_letter_changed_is_nobody() -> None:
    aviary = Aviary(seed=7)
    token = aviary.canary(12).token
    wrong = token[:2] + ("b" if token[2] != "b" else "c") + token[3:]
    assert aviary.find(f"{Aviary(seed=8).canary(12).token} {wrong}".encode()) == set()


def test_digits_inside_ids_and_numbers_are_nobodys_telephone() -> None:
    aviary = Aviary(seed=7)
    number = (aviary.canary(3).phone or "")[2:]
    for text in (f"a{number}b", f"9{number}", f"{number}0", f"1.{number}", f"01a{number}"):
        assert aviary.find(text.encode()) == set(), text


def test_people_beyond_the_reserved_telephone_numbers_have_an_e_mail_address_alone() -> None:
    aviary = Aviary(seed=7)
    canary = aviary.canary(contacts.phone_count())
    assert canary.phone is None
    assert aviary.find(canary.body("key", clock.now())) == {canary.number}
