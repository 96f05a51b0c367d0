"""Spellings of addresses that are one mailbox, and those that are not."""
# ruff: noqa: RUF001 - characters that look alike are the subject

import pytest

from marketplace.text.mailbox import mailbox, spellings


@pytest.mark.parametrize(
    ("addresses", "box"),
    [
        (("jane.doe@gmail.com", "Jane.Doe+x@gmail.com", "janedoe@googlemail.com", "ｊａｎｅ.doe+@GMAIL.com",
          "j.a.n.e.d.o.e@gmail.com"), "janedoe@gmail.com"),
        (("jane@outlook.com", "Jane+shop@outlook.com"), "jane@outlook.com"),
        (("jane@icloud.com", "jane+x@me.com", "JANE@mac.com"), "jane@icloud.com"),
        (("jane@fastmail.com", "jane+x@fastmail.com", "shop@jane.fastmail.com"), "jane@fastmail.com"),
        (("jane@yahoo.com", "jane-shop@yahoo.com"), "jane@yahoo.com"),
        (("jane@yahoo.co.uk", "jane-shop@yahoo.co.uk"), "jane@yahoo.co.uk"),
        (("jane.doe@proton.me", "jane-doe+x@pm.me", "jane_doe@protonmail.com"), "janedoe@proton.me"),
        (("jane.doe@yandex.ru", "jane-doe@ya.ru"), "jane.doe@yandex.ru"),
        (("jane@roofs.example.org", "Jane+leads@roofs.example.org"), "jane@roofs.example.org"),
        (("ﬁona@example.com", "FIONA@example.com"), "fiona@example.com"),
        (("strasse@example.com", "straße@example.com"), "strasse@example.com"),
    ],
)  # fmt: skip
def test_all_spellings_of_one_mailbox_are_one(addresses: tuple[str, ...], box: str) -> None:
    assert {mailbox(address) for address in addresses} == {box}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("jane.doe@outlook.com", "janedoe@outlook.com"),
        ("jean-paul@example.com", "jean@example.com"),
        ("jane@outlook.com", "jane@hotmail.com"),
        ("jane@yahoo.com", "jane@yahoo.de"),
        ("jane@gmail.com", "jane@gmail.com.example.com"),
        ("jane@notyahoo.com", "jane-x@notyahoo.com"),
        ("a.b@a.b.fastmail.com", "a.b@b.fastmail.com"),
    ],
)
def test_two_mailboxes_stay_two(one: str, other: str) -> None:
    assert mailbox(one) != mailbox(other)


@pytest.mark.parametrize("address", ["+x@gmail.com", "...@gmail.com", "-x@yahoo.com"])
def test_a_name_never_becomes_empty(address: str) -> None:
    assert not mailbox(address).startswith("@")


def test_the_spellings_of_older_records_are_looked_for_too() -> None:
    assert spellings("Jane.Doe+x@GoogleMail.com") == (
        "janedoe@gmail.com", "jane.doe@gmail.com", "jane.doe@googlemail.com", "jane.doe+x@googlemail.com",
    )  # fmt: skip
    assert spellings("jane@example.com") == ("jane@example.com",)
