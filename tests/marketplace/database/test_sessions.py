"""Connections that a pool lends again after a task that used one was cancelled."""

import asyncio

import pytest

from marketplace.database.db import open_pool, session


async def test_a_task_cancelled_between_preparing_and_executing_a_statement_leaves_no_transaction(
    database_url: str,
) -> None:
    async with await open_pool(database_url, "marketplace_reports", size=1) as pool:
        prepared = asyncio.Event()

        async def count() -> None:
            async with session(pool) as connection:
                await connection.prepare("select count(*) from lead")  # the first half of every new statement
                prepared.set()
                await asyncio.Event().wait()

        counting = asyncio.create_task(count())
        await prepared.wait()
        counting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await counting
        async with session(pool) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            assert await connection.fetchval("select count(*) from lead") == 0
