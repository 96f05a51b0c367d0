"""Records whose fields are the arguments of a statement, in its order."""

import re
from itertools import count

from marketplace.delivery.store import SQL, RecordedAttempt, Settlement


def columns_of_attempt(statement: str) -> list[str]:
    match = re.search(r"insert into attempt \(([^)]*)\)", SQL[statement])
    assert match
    return re.findall(r"\w+", match[1])


def test_an_attempt_has_the_columns_of_both_statements_in_their_order() -> None:
    fields = list(RecordedAttempt.__struct_fields__)
    assert columns_of_attempt("settle_accepted") == fields
    assert columns_of_attempt("insert_attempt") == [*fields, "answer_excerpt"]
    for statement in ("settle_accepted", "insert_attempt"):
        numbers = ", ".join(f"${number}" for number in range(1, len(fields) + 1))
        assert numbers in re.sub(r"\s+", " ", SQL[statement])


def test_a_settlement_has_the_arguments_that_follow() -> None:
    """Each field is an argument that the statement uses for what the name says."""
    numbered = dict(zip(Settlement.__struct_fields__, count(len(RecordedAttempt.__struct_fields__) + 1), strict=False))
    statement = re.sub(r"\s+", " ", SQL["settle_accepted"])
    uses = {
        "settled_at": "settled_at = $%d",
        "capture_id": "($%d::uuid, 'capture'",
        "payout_id": "($%d, 'payout'",
        "currency": "booked.amount_minor, $%d,",
        "price_minor": "held_minor = held_minor - $%d",
        "payout_minor": "'payout', $%d::bigint",
        "provider_id": "null, $%d::uuid",
        "moves_money": "locked.state = 'exposed' and $%d",
    }
    assert uses.keys() == numbered.keys()
    for field, words in uses.items():
        assert words % numbered[field] in statement, field
    assert max(int(number) for number in re.findall(r"\$(\d+)", statement)) == max(numbered.values())
