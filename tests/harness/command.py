"""`make faults`: hurt a running installation for a while, and tell what held.

python -m tests.harness.command --duration 120 --seed 1 --json build/faults.json
"""

import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
import msgspec

from marketplace.runtime import clock
from marketplace.runtime.supervisor import stop_at_signals
from tests.harness import page
from tests.harness import report as reports
from tests.harness.breaks import BREAKS
from tests.harness.checker import Checker
from tests.harness.kinds_of_faults import NOT_TRIED
from tests.harness.report import Phases, Report, ReportedViolation
from tests.harness.rights import RightsTraffic
from tests.harness.schedule import Schedule
from tests.harness.timeline import tell
from tests.harness.traffic import Traffic
from tests.harness.world import World, running

CALM_SHARE: Final = 0.08
MOST_CALM_SECONDS: Final = 15.0
"""Without faults, before and after, to have something to compare with."""
PROGRESS_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 40.0
"""How long providers go on asking when all is calm again."""
MOST_TOLD: Final = 5


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a run."""

    duration: float
    seed: int
    rate: float
    seconds_per_kill: float
    seconds_per_fault: float
    broken: str | None


class Run:
    """One run under way."""

    def __init__(self, wish: Wish, world: World, enough: asyncio.Event) -> None:
        self.wish, self.world, self.enough = wish, world, enough
        self.checker: Checker
        self.traffic = Traffic(world, world.directory / "providers.jsonl", wish.seed, wish.rate, self._on_problem)
        self.rights = RightsTraffic(world, self.traffic, wish.seed, self._on_problem)
        self.checker = Checker(world, self.traffic, self.rights)
        self.schedule = Schedule(
            world,
            self.traffic,
            wish.seed,
            wish.seconds_per_kill,
            wish.seconds_per_fault,
            BREAKS[wish.broken].shown_by if wish.broken else None,
        )
        world.on_problem = self._on_problem

    def _on_problem(self, status: int, text: bytes) -> None:
        self.checker.look_at_problem(status, text)

    async def run(self) -> Report:
        """Calm, Valkey's absence alone, faults, calm, rest. Ends early on a violation or when told so."""
        wish, calm = self.wish, min(CALM_SHARE * self.wish.duration, MOST_CALM_SECONDS)
        silent, checked, watching = asyncio.Event(), asyncio.Event(), asyncio.create_task(self._watch())
        began = clock.now()
        sending = asyncio.create_task(self.traffic.run(silent))
        calling = asyncio.create_task(self.rights.run(silent))
        checking = asyncio.create_task(self.checker.run(checked))
        await self._pause(calm)
        valkey_left = clock.now()
        await self._do_without_valkey(calm)
        faults_began = clock.now()
        await self._hurt(wish.duration - 3 * calm)
        faults_ended = clock.now()
        await self._pause(calm)
        silent.set()
        await sending
        ended = clock.now()
        await self.traffic.settle(ANSWER_SECONDS)
        self.rights.end()
        await calling
        settled = 0.0 if self.checker.found.is_set() else await self.checker.settle()
        await asyncio.gather(*(reader.finish(ANSWER_SECONDS) for reader in self.world.fed.values()))
        checked.set()
        await checking
        watching.cancel()
        if not self.checker.found.is_set():
            await self.checker.look_at_rest()
        phases = Phases(
            began=began, valkey_left=valkey_left, faults_began=faults_began, faults_ended=faults_ended, ended=ended
        )
        return await self._report(phases, settled)

    async def _do_without_valkey(self, seconds: float) -> None:
        """Its absence alone, to see what a lead then waits."""
        self.world.valkey.kill()
        await self._pause(seconds)
        await self.world.valkey.start()

    async def _hurt(self, seconds: float) -> None:
        self.world.arming = self.world.broken is None
        over = asyncio.Event()
        hurting = asyncio.create_task(self.schedule.run(over))
        await self._pause(seconds)
        over.set()
        await hurting
        if self.checker.found.is_set():
            await self.world.mend()  # a broken installation may refuse to start, and its story is to be told
        else:
            await self.world.calm()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.enough.wait(), seconds)

    async def _watch(self) -> None:
        """Tell how it goes; a violation is enough."""
        began = clock.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.checker.found.wait(), PROGRESS_SECONDS)
                self.enough.set()
                await asyncio.sleep(PROGRESS_SECONDS)
            faults = self.schedule.faults
            click.echo(
                f"{clock.monotonic() - began:6.0f} s  leads {len(self.traffic.numbers):,}"
                f"  acknowledged {len(self.traffic.acknowledged):,}  seen {len(self.world.seen):,}"
                f"  kills {sum(fault.kills for fault in faults)}  other faults {sum(not f.kills for f in faults)}"
                f"  verified {self.checker.verifications}  violations {len(self.checker.violations)}"
            )

    async def _report(self, phases: Phases, settled: float) -> Report:
        """The first violation of each check is told in full; those seen from outside come first."""
        reported = []
        first = {violation.check: violation for violation in reversed(self.checker.violations)}
        for violation in sorted(first.values(), key=lambda one: (one.check.startswith("verify"), one.at))[:MOST_TOLD]:
            timeline = await tell(violation, self.world, self.traffic, self.schedule.faults)
            reported.append(ReportedViolation(violation=violation, timeline=tuple(timeline)))
        return await reports.make(
            self.world,
            self.traffic,
            self.rights,
            self.checker,
            self.schedule.faults,
            phases,
            seed=self.wish.seed,
            rate=self.wish.rate,
            settled_seconds=settled,
            told=tuple(reported),
            troubles=[*self.schedule.troubles, *(one for reader in self.world.fed.values() for one in reader.troubles)],
        )


async def run(wish: Wish, directory: Path) -> Report:
    """One whole run in `directory`."""
    enough = asyncio.Event()
    stop_at_signals(enough)
    broken = BREAKS[wish.broken] if wish.broken else None
    async with running(directory, wish.seed, broken) as world:
        return await Run(wish, world, enough).run()


@click.command()
@click.option("--duration", default=120.0, show_default=True, help="Seconds of traffic.")
@click.option("--seed", default=1, show_default=True, help="Decides people, receivers and faults.")
@click.option("--rate", default=30.0, show_default=True, help="People a second, on average.")
@click.option("--seconds-per-kill", default=5.0, show_default=True)
@click.option("--seconds-per-fault", default=4.0, show_default=True, help="Of all other kinds.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the report here.")
@click.option("--publish", type=click.Path(path_type=Path), metavar="FILE", help="Write the page for people here.")
@click.option("--break", "broken", type=click.Choice(tuple(BREAKS)), help="Break one belt first, to see it noticed.")
@click.option("--keep", is_flag=True, help="Leave the installation's directory behind for looking at.")
def faults(
    duration: float,
    seed: int,
    rate: float,
    seconds_per_kill: float,
    seconds_per_fault: float,
    json_file: Path | None,
    publish: Path | None,
    broken: str | None,
    keep: bool,
) -> None:
    """Hurt a running installation and tell what held. Ctrl-C ends early and still tells. Exits 1 on a violation."""
    import uvloop

    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # broken connections are what this is about
    wish = Wish(
        duration=duration,
        seed=seed,
        rate=rate,
        seconds_per_kill=seconds_per_kill,
        seconds_per_fault=seconds_per_fault,
        broken=broken,
    )
    directory = Path(tempfile.mkdtemp(prefix="marketplace-faults-"))
    directory.chmod(0o755)  # PostgreSQL may run as somebody else
    click.echo(f"seed {seed}, {duration:.0f} s, in {directory}")
    click.echo(f"not tried: {NOT_TRIED}")
    report = uvloop.run(run(wish, directory))
    for line in page.show(report):
        click.echo(line)
    for file, content in ((json_file, _json(report)), (publish, page.publish(report))):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    if keep or (report.violations and not broken):
        click.echo(f"everything is left in {directory}")
    else:
        shutil.rmtree(directory)
    click.echo(f"seed {seed}")
    sys.exit(1 if report.violations else 0)


def _json(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"


if __name__ == "__main__":
    faults()
