"""Division of a payout among the providers that sent one person."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from marketplace.ledger.money import AssignmentPrice
from marketplace.ledger.shares import PayoutClaim, divide_payout
from routing.joining import MOST_JOINED, PayJoined

OWNER = UUID(int=0)


def price(payout_minor: int) -> AssignmentPrice:
    return AssignmentPrice(
        assignment_id=UUID(int=1_000),
        business_id=UUID(int=2_000),
        provider_id=OWNER,
        price_minor=payout_minor + 1,
        payout_minor=payout_minor,
        currency="USD",
    )


def claims(pay: PayJoined, *providers: int) -> list[PayoutClaim]:
    return [
        PayoutClaim(provider_id=UUID(int=provider), inquiry_id=UUID(int=place + 101), pay_joined=pay)
        for place, provider in enumerate(providers)
    ]


@given(st.integers(0, 10**12), st.sampled_from(PayJoined), st.lists(st.integers(0, 5), max_size=MOST_JOINED))
def test_shares_fill_the_payout_without_a_gap_and_no_provider_has_two(
    payout_minor: int, pay: PayJoined, providers: list[int]
) -> None:
    shares = divide_payout(price(payout_minor), claims(pay, *providers))
    assert [share.share for share in shares] == list(range(len(shares)))
    ends = 0
    for share in shares:
        assert share.begins_minor == ends
        assert share.amount_minor > 0
        ends += share.amount_minor
    assert ends == (payout_minor if shares else 0)
    assert len({share.provider_id for share in shares}) == len(shares)
    by_inquiry = {UUID(int=place + 101): UUID(int=provider) for place, provider in enumerate(providers)}
    for share in shares:
        assert share.provider_id == (OWNER if share.inquiry_id is None else by_inquiry[share.inquiry_id])


@given(st.integers(0, 10**12), st.sampled_from(PayJoined), st.lists(st.just(0), max_size=3))
def test_a_payout_that_goes_whole_to_the_provider_of_the_lead_has_no_shares(
    payout_minor: int, pay: PayJoined, providers: list[int]
) -> None:
    assert divide_payout(price(payout_minor), claims(pay, *providers)) == ()


def test_a_provider_whose_part_is_less_than_a_minor_unit_gets_no_share() -> None:
    assert divide_payout(price(1), claims(PayJoined.split, 1, 2)) == ()
    [share] = divide_payout(price(1), claims(PayJoined.last, 1, 2))
    assert (share.provider_id, share.amount_minor) == (UUID(int=2), 1)
