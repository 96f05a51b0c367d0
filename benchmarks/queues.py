"""Compare this project's queue with stock arq and five others: pick-up, idle processor time, a burst, recovery.

    python benchmarks/queues.py [--only saq] [--samples 300] [--burst 5000] [--recover 90] [--json FILE]

Each queue has engines of its own, of the same kinds and settings, and runs in a process of its own
(benchmarks/peers/pickup.py says what is measured). The others are installed on demand into environments below
build/peers, in their newest versions, which are recorded; they are never added to this project's locks. A queue that
cannot be installed or does not run is left out, with the reason.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from benchmarks.directories import temporary_directory
from marketplace.database.embedded import Postgres, Valkey

ROOT: Final = Path(__file__).parents[1]
PICKUP: Final = ROOT / "benchmarks" / "peers" / "pickup.py"
ENVIRONMENTS: Final = ROOT / "build" / "peers"
INSTALL_SECONDS: Final = 120
MEASURE_SECONDS: Final = 400
REASON_LENGTH: Final = 300
"Characters of the reason for which a queue is left out."


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A queue: its packages (none for those of this project's environment), and whether it needs PostgreSQL."""

    packages: tuple[str, ...] = ()
    postgres: bool = False


PEERS: Final = {
    "marketplace": Peer(),
    "arq": Peer(),
    "arq_5ms": Peer(),
    "saq": Peer(packages=("saq[redis]", "typing_extensions")),
    "taskiq": Peer(packages=("taskiq", "taskiq-redis")),
    "streaq": Peer(packages=("streaq",)),
    "procrastinate": Peer(packages=("procrastinate", "psycopg[binary]"), postgres=True),
    "pgqueuer": Peer(packages=("pgqueuer", "asyncpg"), postgres=True),
}
LINE: Final = (
    "{name:15}{pickup_ms[p50]:8.2f}{pickup_ms[p95]:8.2f}{pickup_ms[p99]:8.2f}{idle_cpu_percent:8.2f}{burst_per_s:10,}"
)
HEADINGS: Final = f"{'queue':15}{'p50 ms':>8}{'p95':>8}{'p99':>8}{'idle %':>8}{'burst/s':>10}"


class QueueLeftOut(Exception):
    """Raised when a queue cannot be installed or does not run; the text is the reason."""


async def measure_all(
    names: Collection[str], *, samples: int, burst: int, recover: float, install: bool = True
) -> dict[str, Any]:
    """Measure each queue by itself and return its figures by name, or the reason why it was left out.

    Their recovery, which is mostly waiting, is measured for all at once; `recover` is the longest wait, 0 for none.
    """
    results: dict[str, Any] = {}
    pythons: dict[str, Path] = {}
    print(HEADINGS, flush=True)
    for name in names:
        try:
            python, versions = await prepare(name, install=install)
            figures = await measure(name, python, "measure", "--samples", samples, "--burst", burst)
        except QueueLeftOut as error:
            results[name] = {"left_out": str(error)}
            print(f"{name:15} left out: {error}", flush=True)
        else:
            results[name], pythons[name] = {"versions": versions, **figures}, python
            print(LINE.format(name=name, **figures), flush=True)
    if recover:
        await asyncio.gather(*(_add_recovery(results, name, python, recover) for name, python in pythons.items()))
    return results


async def _add_recovery(results: dict[str, Any], name: str, python: Path, limit: float) -> None:
    try:
        seconds = await measure(name, python, "recover", "--limit", limit)
    except QueueLeftOut as error:
        results[name]["recovery_left_out"] = str(error)
        print(f"{name:15} recovery left out: {error}", flush=True)
    else:
        results[name]["recovery_seconds"] = seconds
        words = f"not within {limit:.0f} s" if seconds is None else f"{seconds:.1f} s"
        print(f"{name:15} runs a killed worker's job again: {words}", flush=True)


async def prepare(name: str, *, install: bool) -> tuple[Path, dict[str, str]]:
    """Return the interpreter of a queue's environment, made if it is missing, and the versions in it."""
    peer = PEERS[name]
    packages = [*map(bare_name, peer.packages), "uvloop"] if peer.packages else ["arq", "redis", "uvloop"]
    place = ENVIRONMENTS / name
    python = place / "bin" / "python" if peer.packages else Path(sys.executable)
    if peer.packages and not (place / "installed").exists():
        if not install:
            raise QueueLeftOut("not installed yet; a full run installs it")
        uv = Path(sys.executable).with_name("uv")
        await run_command(uv, "venv", "--quiet", "--clear", place, "--python", sys.executable, seconds=INSTALL_SECONDS)
        await run_command(
            uv, "pip", "install", "--quiet", "--python", python, *peer.packages, "uvloop", seconds=INSTALL_SECONDS
        )
        (place / "installed").touch()
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    versions = (await run_command(python, "-c", script, *packages, seconds=30)).split()
    return python, dict(zip(packages, versions, strict=True))


def bare_name(requirement: str) -> str:
    """Return the name of a package without its extras."""
    return requirement.partition("[")[0]


async def measure(name: str, python: Path, role: str, *options: object) -> Any:
    """Start engines in a temporary directory, let pickup.py measure one queue, and return what it prints."""
    with temporary_directory() as place:
        valkey, postgres = Valkey(place), Postgres(place)
        engines = (valkey, postgres) if PEERS[name].postgres else (valkey,)
        try:
            for engine in engines:
                await engine.start()
            command = (python, PICKUP, role, name, valkey.url, postgres.url, *options)
            return json.loads(await run_command(*command, seconds=MEASURE_SECONDS))
        finally:
            for engine in engines:
                await engine.stop()


async def run_command(*command: object, seconds: float) -> str:
    """Run a command and return its output. Raises QueueLeftOut with the last line of its errors if it fails."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise QueueLeftOut(f"{Path(str(command[0])).name} took longer than {seconds:.0f} s") from None
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no output"]
        raise QueueLeftOut(lines[-1][:REASON_LENGTH])
    return output.decode()


def main() -> None:
    """Measure the queues in one run and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PEERS, nargs="+", default=list(PEERS), metavar="NAME")
    parser.add_argument("--samples", type=int, default=300, help="paced jobs per queue")
    parser.add_argument("--burst", type=int, default=5000, help="jobs of the burst")
    parser.add_argument("--recover", type=float, default=90.0, help="longest wait for a killed job, 0 to leave it out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    results = uvloop.run(
        measure_all(options.only, samples=options.samples, burst=options.burst, recover=options.recover)
    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
