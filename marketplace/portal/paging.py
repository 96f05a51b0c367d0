"""Cursors of the lists on pages."""

from collections.abc import Sequence
from uuid import UUID

from marketplace.runtime import ids


def next_page(kind: str, row_ids: Sequence[UUID], limit: int) -> str | None:
    """Return the cursor of the next page, or None on the last page.

    `row_ids` are the ids of the rows read: up to `limit` for this page, and more if another page follows.
    """
    return ids.encode(kind, row_ids[limit - 1]) if len(row_ids) > limit else None
