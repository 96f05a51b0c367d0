"""Connections and statements of the bare pipeline."""

from typing import Final

import asyncpg

from marketplace.database.db import READY, SESSION, Connection, Pool, Queries, set_codecs

SQL: Final = Queries(__file__)
SCHEMA: Final = SQL.path.with_name("schema.sql")


async def open_pool(url: str, size: int) -> Pool:
    """Open connections with the session settings of the marketplace: no reset between uses, and no idle limit."""
    return await asyncpg.create_pool(
        url,
        min_size=min(READY, size),
        max_size=size,
        init=set_codecs,
        reset=_keep,
        max_inactive_connection_lifetime=0,
        command_timeout=15,
        server_settings=SESSION,
    )


async def _keep(connection: Connection) -> None:
    """Reset nothing: no session state is ever set."""
