"""Page for people of a run's figures: docs/BENCHMARKS.md.

python -m benchmarks.page build/bench.json docs/BENCHMARKS.md
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Figures = Mapping[str, Any]
SIDES: Final = ("ours", "floor", "ratio")
IN_ONE_COLUMN: Final = frozenset({"overload", "award"})
"Parts whose nested figures are no columns of their table."
NOT_SHOWN: Final = frozenset({"took_seconds", "all_rounds"})

INTRODUCTION: Final = """# Benchmarks

`make bench` measures the marketplace beside a **bare pipeline** (`benchmarks/floor/`), which does the same walk
without features: one Litestar handler, one insert, one stock arq job polled every 5 ms, one award function, one
signed POST on a kept connection, one update. Engines and their settings (`synchronous_commit` on), pools, prepared
statements, event loop, HTTP server, process counts, inquiries and receivers are the same for both, and everything
runs on one machine, the sender and the receivers included.

## Method

- **Open loop.** Arrivals are random and independent of the answers; their times and bodies are fixed before the first
  is sent. A latency from "due" counts from the time at which the request should have been sent, so a late sender
  makes it longer, not shorter; how late it was is in each table.
- **Inquiries** are the demo's without their flaws. No business has caps, hours or a pause, and every receiver answers
  at once.
- **Rounds.** Each round starts both systems anew, on empty databases, one after the other; the one that begins
  changes with each round. A figure is the median of the rounds, a ratio the median of the ratios of the rounds. The
  first five seconds after the start, at 50/s, are reported apart and are the warm-up of the rest; before them the
  marketplace's API has set up the demo's businesses.
- **Accepted to acknowledged** is from each system's own records: from the time at which it took the request to the
  time of the receiver's 2xx. **Due to receipt** is measured from outside, by the sender's and the receivers'
  processes. The queue's part is from notification to start of the job (the bare pipeline knows it to a millisecond),
  the receiver's from the write to its answer (the bare pipeline's HTTP client included); the rest is the system's
  own.
- **Processor time** is that of API, workers, PostgreSQL and Valkey from the first request until no lead is open, per
  *delivered* lead: the marketplace's includes inquiries that no business wanted, the bare pipeline's includes its
  polling, which is most of it at 10/s.
- **Others' share** is the processor time of everything else on the machine, as a share of one core. Figures with much
  of it are noise.
"""

PARTS: Final = {
    "highest_rate": (
        "Highest steady rate",
        "The highest rate, in steps of a quarter, at which every request was accepted and the number of open "
        "leads did not grow; the figures are those at that rate.",
    ),
    "overload": (
        "Overload",
        "Three times our highest steady rate, each request sent once, and then a quarter of that rate. A window "
        "is five seconds by the time at which its requests were due; it is normal if its p99 is at most twice "
        "that of before the overload. `accepted` is from acceptance to acknowledgement; `due to acknowledged` counts "
        "the sender's own lateness as well. The bare pipeline is left out: the sender cannot offer it three times "
        "its rate from the same machine.",
    ),
    "growth": (
        "Stored leads",
        "Each column is an installation of the marketplace whose database holds so many generated leads of the past "
        "year, with the demo's businesses beside those of the generated leads. Latency and processor time are those "
        "of the marketplace end to end, the highest rate is found in short steps, reports and first pages are "
        "milliseconds at the median, one request at a time; a ratio is to the first column.",
    ),
    "fan_out": (
        "Fan-out",
        "A business for each receiver, and leads at a steady rate over all of them: once with healthy receivers, "
        "once with one in twenty that never answers, refuses the connection or answers 503. Milliseconds are from "
        "accepted to acknowledged: of leads whose first business was healthy, and of those that moved from a broken "
        "one to another. A lead is lost if it is not stored, or is open although its business is healthy; a lead that "
        "a broken receiver may have read waits for its next answer.",
    ),
    "match": (
        "Matching",
        "Microseconds, in one process. `candidates` finds the subscriptions whose area holds a lead, the same set "
        "as a scan of all subscriptions that shares no code with the index; `per candidate` judges one; `consider "
        "large` does both in a vertical of a fortieth of them.",
    ),
    "refresh": (
        "Edits",
        "From the commit of one edited subscription until a process has it in force, and the longest time for "
        "which its event loop stood still.",
    ),
    "award": (
        "Awards",
        "Calls of `award_lead` on eight connections: leads for fifty businesses in turn, leads for one, and a "
        "race of several attempts at every lead, with caps and wallets for a part of them, after which every "
        "claim is counted again.",
    ),
    "queue": (
        "Queues",
        "One worker with 32 slots each, on engines of its own. Pick-up is from just before the call to the first "
        "line of the job; recovery is from the kill of a worker until another one starts its job again, with a "
        "lease of 30 s where there is such a setting.",
    ),
}


def write(figures: Figures) -> str:
    """Return the page."""
    parts = [INTRODUCTION, _machine(figures)]
    if "end_to_end" in figures:
        parts.append(_end_to_end(figures["end_to_end"]))
    for name, (title, words) in PARTS.items():
        if name in figures:
            parts.append(f"## {title}\n\n{words}\n\n{_part(name, figures[name])}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _machine(figures: Figures) -> str:
    machine = figures["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    quick = " **A quick run: its tails are noise.**" if figures["quick"] else ""
    loads = ", ".join(map(str, machine["load_average"]))
    return (
        f"## Machine\n\n{machine['processor']}, {machine['cores']} cores, {machine['memory_gigabytes']} GB, "
        f"{machine['system']}, Python {machine['python']}. Commit `{machine['commit']}`, {figures['at']}, "
        f"{figures['took_seconds']:,.0f} s, load average at the start {loads}.{quick}\n\nVersions: {versions}.\n"
    )


def _end_to_end(part: Figures) -> str:
    rows = [("", *(f"p50 {side}" for side in SIDES), *(f"p99 {side}" for side in SIDES), *(f"cpu {s}" for s in SIDES))]
    steps = {"first 5 s": part["first_seconds"], **{f"{rate}/s": step for rate, step in part["rates"].items()}}
    for name, step in steps.items():
        cells = [cell(step[side]["accepted_to_acknowledged_ms"]["p50"]) for side in SIDES]
        cells += [cell(step[side]["accepted_to_acknowledged_ms"]["p99"]) for side in SIDES]
        cells += [cell(step[side]["cpu_ms_per_lead"]["total"]) for side in SIDES]
        rows.append((name, *cells))
    text = (
        f"## End to end\n\n{part['rounds']} rounds, {part['seconds_per_rate']:g} s at each rate; `marketplace verify` "
        f"after each had {part['verify_findings']} findings. Accepted to acknowledged in milliseconds, and processor "
        f"time in milliseconds per delivered lead. The p99 of the first five seconds is "
        f"{cell(part['first_to_steady_p99']['ours'])} times that of 50/s later, the bare pipeline's "
        f"{cell(part['first_to_steady_p99']['floor'])} times.\n\n{markdown(rows)}"
    )
    for name, step in steps.items():
        text += f"\n### {name}\n\n{table(step)}"
    return f"{text}\n### Memory, MB\n\n{table(part['memory_megabytes'])}"


def _part(name: str, figures: Figures) -> str:
    """Return the table of a part, with a column for each of its nested figures, and a line of the others above it."""
    shown = {key: value for key, value in figures.items() if key not in NOT_SHOWN}
    if name in IN_ONE_COLUMN:
        return table({"": shown})
    columns = {key: value for key, value in shown.items() if isinstance(value, Mapping)}
    others = [f"{key.replace('_', ' ')} {cell(value)}" for key, value in shown.items() if key not in columns]
    line = f"{', '.join(others).capitalize()}.\n\n" if others else ""
    return line + table(columns)


def table(columns: Mapping[str, Figures]) -> str:
    """Return a table with a row for each figure that any column has."""
    flat = {name: dict(leaves(figures)) for name, figures in columns.items()}
    names = dict.fromkeys(key for figures in flat.values() for key in figures)
    rows = [("", *(name.replace("_", " ") for name in flat))]
    rows += [(key, *(cell(figures.get(key)) for figures in flat.values())) for key in names]
    return markdown(rows)


def leaves(figures: Figures, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the words and the value of each figure, those of nested ones with the words before them."""
    for key, value in figures.items():
        words = f"{before}, {key}" if before else str(key)
        if isinstance(value, Mapping):
            yield from leaves(value, words.replace("_", " "))
        else:
            yield words.replace("_", " "), value


def cell(value: object) -> str:
    """Return a figure as it stands in a table."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(cell, value))
    return str(value)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its heading."""
    heading, *body = rows
    lines = [heading, ["---"] * len(heading), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(write(json.loads(Path(sys.argv[1]).read_text())))
