"""The ids of a list, as they come packed from a column."""

from uuid import UUID, uuid4

import pytest

from marketplace.reports.rows import Found


def packed(*wanted: UUID) -> Found:
    return Found(b"".join(each.bytes for each in wanted))


def test_packed_ids_are_those_that_were_packed_in_their_order() -> None:
    wanted = [uuid4() for _ in range(5)]
    found = packed(*wanted)
    assert list(found) == wanted
    assert [found[place] for place in (0, 4, -1)] == [wanted[0], wanted[4], wanted[-1]]
    assert [list(found[a:b]) for a, b in ((0, 2), (3, 99), (4, 2))] == [wanted[:2], wanted[3:], []]
    with pytest.raises(IndexError):
        found[5]


def test_an_id_is_found_where_it_stands_and_nowhere_else() -> None:
    wanted = [uuid4() for _ in range(5)]
    alike = UUID(bytes=wanted[2].bytes[:8] + wanted[3].bytes[8:])
    found = packed(*wanted)
    assert [found.index(each) for each in wanted] == list(range(5))
    assert wanted[4] in found
    assert alike not in found
    assert "text" not in found
    assert uuid4() not in packed()
    with pytest.raises(ValueError, match="not among"):
        found.index(alike)
