"""A run for people: a few lines on the screen, and a page to publish.

python -m tests.harness.page build/faults.json docs/FAULTS.md
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.harness.report import Report

METHOD: Final = """
`make faults` starts private engines, two API processes and two workers, and puts a TCP proxy between each two parts.
Providers send an open-loop stream of invented people whose contact data is unique and recognisable anywhere; each post
is sent again under its key until it is answered, and every acknowledgement is on disk. Businesses' servers record every
byte that they are sent and answer well, badly, or not at all. The seed decides which fault comes when; what each meets
is up to the machine, so that a run can be repeated but not replayed.

A quarter of the businesses have no server and read a feed, by streams and by polls, through a proxy in front of both
API processes. Whatever ends a reading, the next goes on from the last event that is on disk; some begin at an older
place or at none, two read at once, some read slowly, late, leave in the middle of an event, or stay away for about as
long as a lead is held. What was read is acknowledged, one lead after the other or everything up to a place: at once,
late, twice or never, and along with it the leads of others and nonsense. Connections are cut in the middle of events
and before an acknowledgement is answered, keys are replaced, and what has not been acknowledged is made a day old.

A checker looks every five seconds, and once more at rest. From outside: nobody's contact data at two businesses, none
before its exposure was committed (by the database's own commit times), no acknowledged inquiry lost, no key answered
with two ids, no contact data or secret in any log, table, metric, answer or in Valkey's files. For readers: events in
the order of their places, each lead at one; everything exposed was read in the end, and is told again from the
beginning of the feed; what they acknowledged was charged once, and nothing else; nobody acknowledges a lead of others.
From the tables:
`marketplace verify`, which recomputes every promise from scratch, money included.
"""


def verdict(report: Report) -> str:
    """The one sentence: what was looked for and not found, never that all is well."""
    if report.violations:
        return f"{report.violations:,} violations in {report.leads:,} leads under {report.faults:,} faults"
    return f"no violation found in {report.leads:,} leads under {report.faults:,} faults"


def show(report: Report) -> Iterable[str]:
    """The run on a screen."""
    yield f"seed {report.seed}, {report.seconds:.0f} s, commit {report.commit}"
    if report.broken:
        yield f"deliberately broken: {report.broken}"
    yield (
        f"leads {report.leads:,}, acknowledged {report.acknowledged:,}, seen by a business {report.seen:,},"
        f" delivered and paid {report.delivered:,}"
    )
    yield f"kills {report.kills:,}: {_counts(report.kills_by_kind)}"
    yield f"other faults: {_counts(report.faults_by_kind)}"
    yield f"receivers: {_counts(report.receivers)}"
    yield f"readers: {_counts(report.readers)}"
    yield from _table(("fault", "times", "lasted p50 s", "recovered p50 s", "max s"), _recovery_rows(report))
    yield from _table(("latency", "leads", "p50 ms", "p95 ms", "max ms"), _latency_rows(report))
    for trouble in report.troubles:
        yield f"harness: {trouble}"
    for told in report.violations_told:
        yield ""
        yield f"VIOLATION {told.violation.check}: {told.violation.detail}"
        yield from told.timeline
    yield ""
    yield verdict(report)


def publish(report: Report) -> str:
    """The run as a page."""
    return "\n".join([
        "# Faults: what was done to a running installation, and what held",
        "",
        f"**{verdict(report).capitalize()}**, of which {report.kills:,} were kills. Seed {report.seed}, "
        f"{report.seconds / 60:.0f} minutes, commit `{report.commit}`, {report.began:%d %B %Y}.",
        "",
        *METHOD.strip().splitlines(),
        *_violations(report),
        *_offered(report),
        *_faults(report),
        *_times(report),
        *_checks(report),
        *_section("Settings", ("what", "value"), [*report.versions.items(), *report.settings.items()]),
        "",
    ])  # fmt: skip


def _violations(report: Report) -> Iterable[str]:
    for told in report.violations_told:
        yield from ("", f"## Violated: {told.violation.check}", "", told.violation.detail, "", "```text")
        yield from (*told.timeline, "```")


def _offered(report: Report) -> Iterable[str]:
    return _section("What was offered, and what became of it", ("what", "count"), [
        ("different submissions", f"{report.leads:,}"),
        ("posts, retries and repetitions included", f"{report.posts:,}"),
        ("acknowledged", f"{report.acknowledged:,}"),
        ("persons whose contact data reached a business", f"{report.seen:,}"),
        *((f"leads at rest: {state}", f"{count:,}") for state, count in report.states.items()),
        *((f"answers: {status}", f"{count:,}") for status, count in report.answers.items()),
    ])  # fmt: skip


def _faults(report: Report) -> Iterable[str]:
    yield from _section("Kills", ("kill", "times"), _counted(report.kills_by_kind))
    yield from _section("Other faults", ("fault", "times"), _counted(report.faults_by_kind))
    yield from _section("What receivers did", ("what", "times"), _counted(report.receivers))
    yield from _section(
        "What readers of a feed did",
        ("what", "times"),
        _counted(report.readers),
        "Each read in one of these ways for some seconds, then in another; what became of an event is counted once, "
        "when it had come for the first time.",
    )


def _times(report: Report) -> Iterable[str]:
    yield from _section(
        "Time to recover",
        ("fault", "times", "lasted, p50 s", "recovered, p50 s", "max s"),
        _recovery_rows(report),
        "From the end of the fault (of a kill: when it has happened; of an absence: when it has ended) to the delivery "
        "of an inquiry that was submitted after it. Other faults go on meanwhile, and are included.",
    )
    yield from _section(
        "Latency",
        ("phase", "leads", "p50 ms", "p95 ms", "max ms"),
        _latency_rows(report),
        "From the provider's first try to the moment that a business has the whole lead, all retries included. Whoever "
        "reads a feed comes when they like, some of them after two minutes.",
    )


def _checks(report: Report) -> Iterable[str]:
    rows = [(name, f"{count:,}", report.violations_by_check.get(name, 0)) for name, count in report.checks.items()]
    return _section(
        "Checks",
        ("check", "examined", "violated"),
        rows,
        f"{report.verifications:,} verifications of all tables, the last one at rest, which came "
        f"{report.settled_seconds:.0f} s after the last answer; {report.looks_skipped:,} looks were cut short because "
        "an engine was away, and made up for by the next. Leaks are counted in bytes searched.",
    )


def _section(title: str, heads: tuple[str, ...], rows: Sequence[tuple[object, ...]], says: str = "") -> Iterable[str]:
    yield from ("", f"## {title}", "")
    if says:
        yield from (says, "")
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"


def _counted(counts: dict[str, int]) -> list[tuple[object, ...]]:
    return [(what, f"{count:,}") for what, count in counts.items()]


def _recovery_rows(report: Report) -> list[tuple[object, ...]]:
    return [
        (kind, one.count, f"{one.outage_p50:.2f}", f"{one.p50:.2f}", f"{one.max:.2f}")
        for kind, one in report.recovery_seconds.items()
    ]


def _latency_rows(report: Report) -> list[tuple[object, ...]]:
    return [
        (phase, f"{one.count:,}", f"{one.p50:,.0f}", f"{one.p95:,.0f}", f"{one.max:,.0f}")
        for phase, one in report.latency_ms.items()
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> Iterable[str]:
    table = [heads, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(heads))]
    for row in table:
        yield "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(publish(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Report)))
