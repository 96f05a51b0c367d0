"""The worker's part in the refreshing of lists: a process for each source that is due, one at a time."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from marketplace.database.db import Pool, session
from marketplace.runtime import clock, errors, ids
from marketplace.runtime.jobs import run_process
from marketplace.runtime.log import logger
from marketplace.suppression_lists import source_store
from marketplace.suppression_lists.source_store import LEASE

log = logger("list_sources")

LOOK_SECONDS: Final = 2.0
"Pause between two searches for sources that are due."


async def keep_refreshing(pool: Pool, command: Sequence[str], stopping: asyncio.Event) -> None:
    """Start a process for each source that is due, until `stopping`; then end the one that runs.

    `command` refreshes the list whose id follows it. If its process dies, the source is due again after LEASE.
    """
    while not stopping.is_set():
        try:
            now = clock.now()
            async with session(pool) as connection:
                list_id = await source_store.claim_due(connection, now + LEASE, now)
            if list_id is not None:
                code = await run_process((*command, ids.encode("list", list_id)), stopping)
                if code != 0 and not stopping.is_set():
                    log.error("list_refresh_ended", list=ids.encode("list", list_id), code=code)
                continue
        except errors.Unavailable as error:
            log.warning("list_sources_unavailable", error=error.detail)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
