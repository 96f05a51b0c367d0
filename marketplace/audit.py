"""Who changed what, and when: one row per change, written in the change's own transaction, never altered afterwards.

No row holds contact data or a secret: `detail` names versions, states and amounts.
"""

from datetime import datetime

import msgspec

from marketplace import clock
from marketplace.db import Connection, Queries

SQL = Queries(__file__, "audit.sql")

COMMAND_LINE = "command line"
"The actor of what an operator does on the machine itself, where no key is involved."


async def record(
    connection: Connection, now: datetime, actor: str, action: str, subject: str, **detail: str | int | bool | None
) -> None:
    """`actor` (a key's public id) did `action` (`subscription.pause`) to `subject` (`sub_…`)."""
    await connection.execute(
        SQL["insert_audit"], clock.new_id(), now, actor, action, subject, msgspec.json.encode(detail)
    )
