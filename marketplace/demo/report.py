"""Report of a run: tables for a terminal, and JSON with stable keys."""

from typing import Any

from rich.console import Console
from rich.table import Table

from marketplace.demo.display import in_ms
from marketplace.demo.figures import MoneyFigures, NearMiss, Quantiles
from marketplace.demo.run import RunResult
from routing.inquiry import amount_in_words


def summary(result: RunResult) -> dict[str, Any]:
    """Return the result as --json writes it. Keys are stable; units are milliseconds, minor units and seconds."""
    counts, offered, sight = result.counts, result.offered, result.sight
    return {
        "received": counts.received,
        "refused": offered.refused,
        "rejected": counts.rejected,
        "duplicates": counts.duplicates,
        "suppressed": counts.suppressed,
        "nurtured": counts.nurtured,
        "qualified": counts.qualified,
        "delivered": counts.delivered,
        "turned_down": counts.turned_down,
        "unsold": counts.unsold,
        "open": counts.open,
        **_journeys(result),
        "sent": offered.sent,
        "repeated": offered.repeated,
        "sent_again": offered.sent_again,
        "failed": offered.failed,
        "refused_by_code": offered.refusals,
        "reasons": [
            {"state": reason.state, "reason": reason.reason, "leads": reason.leads} for reason in result.reasons
        ],
        "latency_ms": _quantiles(result.latency.accepted),
        "submitted_latency_ms": _quantiles(result.latency.submitted),
        "own_latency_ms": _quantiles(result.latency.sent),
        "generator_lateness_ms": {
            "p50": offered.lateness.p50,
            "p99": offered.lateness.p99,
            "max": offered.lateness.max,
        },
        "money": _money(result.money),
        "receivers": {
            "requests": sight.requests,
            "leads": sight.leads,
            "repeated_ids": sight.repeated_ids,
            "bad_signatures": sight.bad_signatures,
            "seen_by_two": sight.seen_by_two,
            "not_theirs": sight.not_theirs,
        },
        "verify": {
            "checked": result.verification.checked,
            "examined": result.verification.examined,
            "findings": result.verification.findings,
        },
        "restarts": result.restarts,
        "seconds": offered.seconds,
        "rate": result.wish.rate,
        "seed": result.wish.seed,
        "sound": result.sound,
    }


def _journeys(result: RunResult) -> dict[str, Any]:
    """Return the figures of people who came back or wait, and of their rights and certificates."""
    journeys, claims = result.journeys, result.claims
    return {
        "promoted": journeys.promoted,
        "nurture": {
            "waiting": journeys.waiting,
            "reentered": journeys.reentered,
            "sold": journeys.sold,
            "with_question": journeys.with_question,
            "sold_after_answer": journeys.sold_after_answer,
        },
        "joined": {
            "inquiries": journeys.joined,
            "in_time": journeys.joined_in_time,
            "shared_payouts": journeys.shared,
        },
        "corrected": journeys.corrected,
        "revoked": journeys.revoked,
        "notices": {"sent": journeys.notices, "acknowledged": journeys.acknowledged},
        "certificates": {"claimed": claims.claimed, "failed": claims.failed},
    }


def _money(money: MoneyFigures) -> dict[str, Any]:
    return {
        "currency": money.currency,
        "topped_up_minor": money.topped_up_minor,
        "held_minor": money.held_minor,
        "captured_minor": money.captured_minor,
        "refunded_minor": money.refunded_minor,
        "paid_to_providers_minor": money.paid_to_providers_minor,
        "margin_minor": money.margin_minor,
    }


def _quantiles(quantiles: Quantiles) -> dict[str, float | None]:
    return {"p50": quantiles.p50, "p95": quantiles.p95, "p99": quantiles.p99}


def print_report(result: RunResult, console: Console) -> None:
    """Print all tables of the report."""
    console.print()
    _print_walk(result, console)
    _print_journeys(result, console)
    _print_misses(result, console)
    _print_speed(result, console)
    _print_money(result, console)
    _print_trust(result, console)


def _print_walk(result: RunResult, console: Console) -> None:
    counts, offered = result.counts, result.offered
    table = _table("Outcomes of the inquiries", ("", "inquiries", "why"))
    refusals = ", ".join(f"{code} {count}" for code, count in offered.refusals.items())
    rows = [
        ("sent", offered.sent, f"in {offered.seconds:.1f} s; {offered.repeated} of them repeated with the same key"),
        ("refused at submission", offered.refused, refusals),
        ("received", counts.received, ""),
        ("  rejected", counts.rejected, _why(result, "rejected", "expired")),
        ("  duplicates", counts.duplicates, "the same person within the window"),
        ("  nurtured", counts.nurtured, "too early, or a question is open"),
        ("  qualified", counts.qualified, ""),
        ("    delivered", counts.delivered, "to exactly one business each, and paid for"),
        ("    turned down", counts.turned_down, _why(result, "refused", "lapsed")),
        ("    unsold", counts.unsold, ""),
        ("still trying", counts.open, ""),
    ]
    for name, number, why in rows:
        table.add_row(name, f"{number:,}", why)
    console.print(table)


def _print_journeys(result: RunResult, console: Console) -> None:
    journeys = result.journeys
    table = _table("People who came back, or are waited for", ("", "leads", "why"))
    for name, number, why in (
        ("promoted", journeys.promoted, "not ready at first, and qualified by what the person did or said later"),
        (
            "asked again",
            journeys.joined,
            f"{journeys.joined_in_time:,} before anybody was shown the lead; {journeys.shared:,} payouts divided",
        ),
        ("corrected", journeys.corrected, "the provider corrected what the person had said"),
        (
            "nurtured and waiting",
            journeys.waiting,
            "too early, or a question is open: qualified again at their date or a touch",
        ),
        ("nurtured and back", journeys.reentered, f"{journeys.sold:,} of them delivered"),
        (
            "waited for an answer",
            journeys.with_question,
            f"{journeys.sold_after_answer:,} of them answered and were delivered",
        ),
        ("said stop", journeys.revoked, "nobody else is shown the lead; a business that was is told so"),
        ("certificates verified", result.claims.claimed, f"by their service; {result.claims.failed:,} others were not"),
        ("notices to businesses", journeys.notices, f"{journeys.acknowledged:,} of them acknowledged"),
    ):
        table.add_row(f"  {name}", f"{number:,}", why)
    console.print(table)


def _why(result: RunResult, *states: str) -> str:
    return ", ".join(f"{reason.reason} {reason.leads:,}" for reason in result.reasons if reason.state in states)


def _print_misses(result: RunResult, console: Console) -> None:
    if not result.near_misses:
        return
    table = _table("Unsold, by the rule that failed first", ("", "leads", "at the median", "for example"))
    for miss in result.near_misses:
        table.add_row(f"  {miss.rule}", f"{miss.leads:,}", _by_how_much(miss, result), miss.example or "")
    console.print(table)


def _by_how_much(miss: NearMiss, result: RunResult) -> str:
    if miss.distance is None:
        return ""
    if miss.unit == "minor":
        return amount_in_words(round(miss.distance), result.money.currency or "USD")
    count, unit = f"{miss.distance:,.0f}", miss.unit or ""
    return f"{count} {unit.removesuffix('s') if count == '1' else unit}".strip()


def _print_speed(result: RunResult, console: Console) -> None:
    latency, late = result.latency, result.offered.lateness
    table = _table("Speed of delivered leads, by the database's clock", ("", "p50", "p95", "p99"))
    for name, quantiles in (
        ("submitted to acknowledged", latency.submitted),
        ("accepted to acknowledged", latency.accepted),
        ("accepted to exposed, our own part", latency.sent),
    ):
        table.add_row(f"  {name}", in_ms(quantiles.p50), in_ms(quantiles.p95), in_ms(quantiles.p99))
    console.print(table)
    console.print(
        "  The sender was late by"
        f" {late.p50:.1f} ms at the median, {late.p99:.1f} ms at the 99th percentile, {late.max:.0f} ms at most.\n",
        highlight=False,
    )


def _print_money(result: RunResult, console: Console) -> None:
    money = result.money
    table = _table("Money", ("", "amount"))
    for name, minor in (
        ("paid in by businesses", money.topped_up_minor),
        ("held for leads on their way", money.held_minor),
        ("charged for delivered leads", money.captured_minor),
        ("earned by providers", money.paid_to_providers_minor),
        ("left for the marketplace", money.margin_minor),
    ):
        table.add_row(f"  {name}", amount_in_words(minor, money.currency or "USD"))
    console.print(table)


def _print_trust(result: RunResult, console: Console) -> None:
    sight, verification = result.sight, result.verification
    console.print(
        f"[bold]Receivers[/]  {sight.leads:,} leads in {sight.requests:,} requests"
        f" ({sight.repeated_ids:,} repeated, {sight.notices:,} notices): seen by two businesses {sight.seen_by_two},"
        f" not exposed to them {sight.not_theirs}, bad signatures {sight.bad_signatures}.",
        highlight=False,
    )
    console.print(
        f"[bold]Verify[/]  {verification.findings} findings in {verification.examined:,} rows by"
        f" {verification.checked} checks.",
        highlight=False,
    )
    if result.restarts or result.offered.sent_again:
        console.print(
            f"[bold]Failures[/]  processes started again: {result.restarts},"
            f" {result.offered.sent_again:,} submissions repeated with their keys,"
            f" {result.offered.failed} unanswered.",
            highlight=False,
        )
    for check in verification.checks:
        if check.findings and check.severity == "finding":
            console.print(f"  [bold red]{check.name}[/] {check.promise}", highlight=False)
            for row in check.rows[:5]:
                console.print(f"    {row}", highlight=False, markup=False)


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=f"[bold]{title}[/]", title_justify="left", title_style="", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        last_of_many = place == len(headings) - 1 and heading in ("why", "for example")
        table.add_column(heading, justify="left" if place == 0 or last_of_many else "right", overflow="fold")
    table.caption = " "
    return table
