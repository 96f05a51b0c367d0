"""The ids of a list, as they come packed from a column."""

from uuid import UUID, uuid4

import pytest

from marketplace.reports.rows import LeadIds


def packed(*expected: UUID) -> LeadIds:
    return LeadIds(b"".join(each.bytes for each in expected))


def test_packed_ids_are_those_that_were_packed_in_their_order() -> None:
    expected = [uuid4() for _ in range(5)]
    ids_found = packed(*expected)
    assert list(ids_found) == expected
    assert [ids_found[place] for place in (0, 4, -1)] == [expected[0], expected[4], expected[-1]]
    assert [list(ids_found[a:b]) for a, b in ((0, 2), (3, 99), (4, 2))] == [expected[:2], expected[3:], []]
    with pytest.raises(IndexError):
        ids_found[5]


def test_an_id_is_found_where_it_stands_and_nowhere_else() -> None:
    expected = [uuid4() for _ in range(5)]
    alike = UUID(bytes=expected[2].bytes[:8] + expected[3].bytes[8:])
    ids_found = packed(*expected)
    assert [ids_found.index(each) for each in expected] == list(range(5))
    assert expected[4] in ids_found
    assert alike not in ids_found
    assert "text" not in ids_found
    assert uuid4() not in packed()
    with pytest.raises(ValueError, match="not among"):
        ids_found.index(alike)
