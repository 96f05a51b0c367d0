"""Report of a run for people: lines on the screen, and a page to publish.

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
is repeated under its key until it is answered, and every acknowledgement is stored on disk. Businesses' servers record
every byte they receive, and answer correctly, wrongly, or not at all. The seed decides the order of the faults; the
requests that each one hits depend on the machine, so that a run can be repeated but not reproduced exactly.

A quarter of the businesses have no server and read a feed, by streams and by polls, through a proxy in front of both
API processes. After any interruption a reader continues from the last event on its disk; some begin at an older place
or at none, two read at once, some read slowly, late, disconnect in the middle of an event, or stay away for about as
long as a lead is held. They acknowledge leads one by one or everything up to a place: at once, late, twice or never;
they also acknowledge leads of other businesses and invalid ids. Connections are cut in the middle of events and before
an acknowledgement is answered, keys are replaced, and unacknowledged leads are made a day old.

An operator imports lists of people who must not be contacted, whole or in addition, and records revocations of the
latest leads; each call is repeated until it is answered. The listed people then ask for an offer.

A checker runs every five seconds, and once more when the run has ended. From outside: no person's contact data at two
businesses, none before its exposure was committed (by the database's own commit times), no acknowledged inquiry lost,
no key answered with two ids, no contact data or secret in any log, table, metric, answer or in Valkey's files. For
readers: events in the order of their places, each lead at one place; every exposed lead was read in the end, and is
sent again from the beginning of the feed; acknowledged leads, and no others, were charged once; no reader can
acknowledge a lead of another business. Nobody was exposed whose list was published before their inquiry, and no lead
after its revocation was answered; its feed does not send it again. From the tables: `marketplace verify`, which
recomputes every promise, money included.
"""


def verdict(report: Report) -> str:
    """Return the result in one sentence: the number of violations found, never a claim that there are none."""
    if report.violations:
        return f"{report.violations:,} violations in {report.leads:,} leads under {report.faults:,} faults"
    return f"no violation found in {report.leads:,} leads under {report.faults:,} faults"


def show(report: Report) -> Iterable[str]:
    """Yield the report as lines for a screen."""
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
    yield f"lists and revocations: {_counts(report.rights)}"
    yield from _table(("fault", "times", "lasted p50 s", "recovered p50 s", "max s"), _recovery_rows(report))
    yield from _table(("latency", "leads", "p50 ms", "p95 ms", "max ms"), _latency_rows(report))
    for trouble in report.troubles:
        yield f"harness: {trouble}"
    for reported in report.violations_told:
        yield ""
        yield f"VIOLATION {reported.violation.check}: {reported.violation.detail}"
        yield from reported.timeline
    yield ""
    yield verdict(report)


def publish(report: Report) -> str:
    """Return the report as a Markdown page."""
    return "\n".join([
        "# Faults: faults in a running installation, and the promises that held",
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
    for reported in report.violations_told:
        yield from ("", f"## Violated: {reported.violation.check}", "", reported.violation.detail, "", "```text")
        yield from (*reported.timeline, "```")


def _offered(report: Report) -> Iterable[str]:
    return _section(
        "Load and results",
        ("what", "count"),
        [
            ("different submissions", f"{report.leads:,}"),
            ("posts, retries and repetitions included", f"{report.posts:,}"),
            ("acknowledged", f"{report.acknowledged:,}"),
            ("persons whose contact data reached a business", f"{report.seen:,}"),
            *((f"leads at rest: {state}", f"{count:,}") for state, count in report.states.items()),
            *((f"answers: {status}", f"{count:,}") for status, count in report.answers.items()),
        ],
    )


def _faults(report: Report) -> Iterable[str]:
    yield from _section("Kills", ("kill", "times"), _counted(report.kills_by_kind))
    yield from _section("Other faults", ("fault", "times"), _counted(report.faults_by_kind))
    yield from _section("Answers of the businesses' servers", ("what", "times"), _counted(report.receivers))
    yield from _section(
        "Readers of feeds",
        ("what", "times"),
        _counted(report.readers),
        "Each reader uses one of these ways for some seconds, then another. The result of an event is counted once, "
        "when the event was received first.",
    )
    yield from _section("Lists and revocations", ("answer", "times"), _counted(report.rights))


def _times(report: Report) -> Iterable[str]:
    yield from _section(
        "Time to recover",
        ("fault", "times", "lasted, p50 s", "recovered, p50 s", "max s"),
        _recovery_rows(report),
        "From the end of the fault (for a kill, its moment; for an absence, its end) to the delivery of an inquiry "
        "that was submitted after it. Other faults continue meanwhile, and are included.",
    )
    yield from _section(
        "Latency",
        ("phase", "leads", "p50 ms", "p95 ms", "max ms"),
        _latency_rows(report),
        "From the provider's first try until a business has the whole lead, with all retries. Readers of feeds connect "
        "at times of their own, some of them after two minutes.",
    )


def _checks(report: Report) -> Iterable[str]:
    rows = [(name, f"{count:,}", report.violations_by_check.get(name, 0)) for name, count in report.checks.items()]
    return _section(
        "Checks",
        ("check", "examined", "violated"),
        rows,
        f"{report.verifications:,} verifications of all tables, the last one at rest, which came "
        f"{report.settled_seconds:.0f} s after the last answer; {report.looks_skipped:,} were interrupted because "
        "an engine was unavailable, and made up for by the next. Leaks are counted in bytes searched.",
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
        (kind, recovery.count, f"{recovery.outage_p50:.2f}", f"{recovery.p50:.2f}", f"{recovery.max:.2f}")
        for kind, recovery in report.recovery_seconds.items()
    ]


def _latency_rows(report: Report) -> list[tuple[object, ...]]:
    return [
        (phase, f"{spread.count:,}", f"{spread.p50:,.0f}", f"{spread.p95:,.0f}", f"{spread.max:,.0f}")
        for phase, spread in report.latency_ms.items()
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
