"""Checks of a response contract before it is saved: its own sample answers, and answers that are never a sale."""

from collections.abc import Iterator
from typing import Final, assert_never

import msgspec

from routing.contract import AnswerSample, Contract, Meaning
from routing.delivery import AnswerReceived, AttemptOutcome, RefusalReason, classify

NEVER_A_SALE: Final = (
    AnswerSample(
        expected=Meaning.not_understood,
        content_type="text/html",
        body="<!doctype html><html><head><title>Log in</title></head><body><form>Password</form></body></html>",
    ),
    AnswerSample(
        expected=Meaning.not_understood,
        content_type="text/html",
        body="<br />\n<b>Warning</b>:  mysqli_connect(): Connection refused in <b>/srv/leads.php</b> on line <b>12</b>",
    ),
    AnswerSample(expected=Meaning.not_understood, body='{"error":"internal error"}'),
)
"""Answers with the status 200 that no contract may accept: a page to log in, a warning of PHP, an error in JSON."""


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A sample answer that does not mean what it should. `position` counts from 0; None for an answer of our own."""

    position: int | None
    sample: AnswerSample
    actual: Meaning


def meaning_of(contract: Contract, sample: AnswerSample) -> Meaning:
    """Return the meaning of a sample answer as a delivery would read it."""
    answer = AnswerReceived(status=sample.status, body=sample.body.encode(), content_type=sample.content_type)
    classified = classify(answer, exposed=True, contract=contract)
    match classified.outcome:
        case AttemptOutcome.accepted:
            return Meaning.accepted
        case AttemptOutcome.refused | AttemptOutcome.gone:
            return Meaning.duplicate if classified.reason is RefusalReason.duplicate else Meaning.refused
        case AttemptOutcome.busy | AttemptOutcome.redirect:
            return Meaning.try_later
        case AttemptOutcome.unknown | AttemptOutcome.not_sent:
            return Meaning.not_understood
        case _:
            assert_never(classified.outcome)


def find_disagreements(contract: Contract) -> Iterator[Disagreement]:
    """Yield the samples of a contract that it reads otherwise, and the answers that it must not accept but does."""
    for position, sample in enumerate(contract.samples):
        actual = meaning_of(contract, sample)
        if actual is not sample.expected:
            yield Disagreement(position=position, sample=sample, actual=actual)
    for sample in NEVER_A_SALE:
        if meaning_of(contract, sample) is Meaning.accepted:
            yield Disagreement(position=None, sample=sample, actual=Meaning.accepted)
