"""Display of a running demo: a progress bar and a live table on a terminal, otherwise a line every few seconds."""

from typing import Final

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from marketplace.demo.figures import Latency, LeadCounts
from marketplace.runtime import clock

LINE_SECONDS: Final = 5.0
"""Seconds between two lines without a terminal."""


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """State of a run: phase, seconds of the total, inquiries sent and refused, and the counts in the database."""

    phase: str
    seconds: float
    total: float
    sent: int
    refused: int
    counts: LeadCounts
    latency: Latency | None


class Display:
    """Shows the state of a run as it changes. Use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
            console=self._console,
        )
        self._task = self._progress.add_task("starting", total=1.0)
        self._live: Live | None = None
        self._line_at = 0.0
        self._before: tuple[float, int] | None = None

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live = Live(self._progress, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, words: str) -> None:
        """Print one line."""
        self._console.print(words, highlight=False)

    def show(self, moment: RunProgress) -> None:
        """Show a state in place of the previous one. Without a terminal, print one every `LINE_SECONDS`."""
        if self._live is not None:
            self._progress.update(
                self._task, description=moment.phase, completed=min(moment.seconds, moment.total), total=moment.total
            )
            self._live.update(Group(self._progress, self._table(moment)))
        elif clock.monotonic() - self._line_at >= LINE_SECONDS:
            self._line_at = clock.monotonic()
            self._console.print(_line(moment), highlight=False, soft_wrap=True)

    def _table(self, moment: RunProgress) -> Table:
        columns = _columns(moment)
        table = Table(box=None, pad_edge=False, collapse_padding=True)
        for heading in columns:
            table.add_column(heading, justify="right")
        table.add_row(*columns.values())
        return table


def _columns(moment: RunProgress) -> dict[str, str]:
    counts, latency = moment.counts, moment.latency
    return {
        "received": f"{counts.received:,}",
        "refused": f"{moment.refused:,}",
        "rejected": f"{counts.rejected:,}",
        "nurtured": f"{counts.nurtured:,}",
        "delivered": f"{counts.delivered:,}",
        "unsold": f"{counts.unsold:,}",
        "open": f"{counts.open:,}",
        "per s": f"{counts.delivered / moment.seconds:.1f}" if moment.seconds > 0 else "-",
        "p50 ms": _figure(latency.accepted.p50 if latency else None),
        "p99 ms": _figure(latency.accepted.p99 if latency else None),
    }


def _line(moment: RunProgress) -> str:
    figures = "  ".join(f"{name} {value}" for name, value in _columns(moment).items())
    return f"{moment.phase} {moment.seconds:.0f}/{moment.total:.0f} s  {figures}"


def in_ms(value: float | None) -> str:
    """Format milliseconds for people, `-` for None."""
    return "-" if value is None else f"{_figure(value)} ms"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
