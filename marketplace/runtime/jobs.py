"""Jobs in processes of their own, so that long computing never delays the process that starts them."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Final

STOP_SECONDS: Final = 5.0
"Time that a process has to end after it was told to."


async def run_process(command: Sequence[str], stopping: asyncio.Event) -> int:
    """Run a command to its end and return its exit code; end it early when `stopping` is set."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    ended, leaving = asyncio.create_task(process.wait()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await _stop_process(process)
        return await ended
    finally:
        leaving.cancel()
        if process.returncode is None:
            process.kill()


async def _stop_process(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and kill it after STOP_SECONDS."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), STOP_SECONDS)
        except TimeoutError:
            process.kill()
