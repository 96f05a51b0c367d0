"""The database as commands of the terminal use it: a small pool, and a sentence for each refusal."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from marketplace.database.db import Pool, open_pool
from marketplace.database.embedded import engines
from marketplace.database.logins import Role
from marketplace.database.migrate import migrate
from marketplace.runtime import errors
from marketplace.runtime.settings import Settings, StartError

T = TypeVar("T")


@asynccontextmanager
async def command_pool(settings: Settings, role: Role) -> AsyncIterator[Pool]:
    """Open two connections at most, as `role`. In embedded mode, migrate first: this may be the first command."""
    async with engines(settings) as running:
        if settings.embedded:
            await migrate(running.database_url, settings.master_key)
        pool = await open_pool(running.database_url, role, size=2, master_key=settings.master_key)
        try:
            yield pool
        finally:
            await pool.close()


def run_command(work: Coroutine[Any, Any, T], code: str, *, input_help: str, help: str) -> T:
    """Run the work of a command. Raises StartError with `code` and a sentence for what the marketplace refuses.

    Its remedy is `input_help` for input that is refused, and `help` for everything else.
    """
    import uvloop

    try:
        return uvloop.run(work)
    except errors.InvalidInput as error:
        raise StartError(code, " ".join(fault.detail for fault in error.faults), input_help) from error
    except errors.MarketplaceError as error:
        raise StartError(code, error.detail, help) from error
