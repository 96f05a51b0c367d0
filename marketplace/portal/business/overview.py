"""Overview of a business: the last 30 days, the newest leads, and the reasons why no leads arrive."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get, post
from markupsafe import Markup

from marketplace.database.db import Pool, session
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import AnswerAlarm, SubscriptionRecord, TenantScope
from marketplace.feedback import next_actions
from marketplace.feedback.next_actions import NextAction
from marketplace.portal import charts
from marketplace.portal.business import onboarding, store
from marketplace.portal.business.lead_list import NEWEST_LEADS, load_rows
from marketplace.portal.business.store import DeliverySummary
from marketplace.portal.business.wallet_summary import WalletSummary, business_page, load_wallet_summary
from marketplace.portal.business.why import MOST_SUBSCRIPTIONS, load_checks
from marketplace.portal.forms import submitted
from marketplace.portal.frame import money, partial, redirect, zone_of
from marketplace.portal.live import LivePart, show_part
from marketplace.portal.session import Viewer, visitor
from marketplace.reports.question import midnight, usual
from marketplace.reports.roi import RoiReport, load_roi
from marketplace.reports.roi import usual as roi_question
from marketplace.runtime import clock
from marketplace.security.auth import CallerKind
from marketplace.web.http import AnyRequest, services

DAYS: Final = 30
MOST_DUE: Final = 10
"Due reminders on the overview; the board shows all of them."
MOST_ALARMS: Final = 3
"Alarms about answers on the overview; the page of each endpoint shows its own."
LATEST: Final = 6
"Leads on the overview."
PAUSED: Final = "Paused: you receive no leads until you resume."
RESUMED: Final = "Resumed: you receive leads again."


class PauseForm(msgspec.Struct, frozen=True, kw_only=True):
    """Request to pause all active subscriptions, or to resume all paused ones."""

    pause: bool = False


@get("/business")
async def show_overview(request: AnyRequest) -> Response[bytes]:
    """Show the overview page."""
    viewer = await visitor(request, CallerKind.business)
    app, now = services(request), clock.now()
    zone = zone_of(viewer.zone).key
    today = now.astimezone(ZoneInfo(zone)).date()
    first = today - timedelta(days=DAYS - 1)
    since, before = midnight(first, zone), midnight(first - timedelta(days=DAYS), zone)
    (month, steps), (wallet_summary, earlier, days, subscriptions), report, latest, why = await asyncio.gather(
        _load_month(app.pool, viewer, since, now),
        _load_history(app.pool, viewer, before, since, zone),
        find_roi(request, viewer),
        show_part(request, viewer, LATEST_PART),
        show_part(request, viewer, WHY_PART),
    )
    won_jobs = won_words(report) if report else ""
    return await business_page(
        request,
        viewer,
        "business/overview.html",
        wallet_summary=wallet_summary,
        month=month,
        change=_change(month, earlier),
        days_left=_days_left(wallet_summary, month),
        chart=_chart(days, first, today),
        first=first,
        roi=report,
        plot=draw_returns(report),
        won_jobs=won_jobs,
        live_subscriptions=_in_state(subscriptions, "active"),
        steps=steps,
        paused=_in_state(subscriptions, "paused"),
        suspended=_in_state(subscriptions, "suspended"),
        latest=latest,
        why=why,
        due_actions=await _load_due(app.pool, viewer, now),
        answer_alarms=await _load_alarms(app.pool, viewer),
    )


def _in_state(subscriptions: tuple[SubscriptionRecord, ...], state: str) -> list[SubscriptionRecord]:
    return [subscription for subscription in subscriptions if subscription.state == state]


async def _load_due(pool: Pool, viewer: Viewer, now: datetime) -> tuple[NextAction, ...]:
    """Return the next actions whose reminder is due."""
    async with session(pool) as connection:
        return await next_actions.list_due(connection, viewer.owner, viewer.mode, now, MOST_DUE)


async def _load_alarms(pool: Pool, viewer: Viewer) -> tuple[AnswerAlarm, ...]:
    """Return the open alarms about the answers of the business's servers."""
    async with session(pool) as connection:
        return await directory_store.list_answer_alarms(connection, viewer.owner, MOST_ALARMS)


async def _load_month(
    pool: Pool, viewer: Viewer, since: datetime, until: datetime
) -> tuple[DeliverySummary, onboarding.OnboardingProgress | None]:
    """Return the delivery figures of the month and, if no lead was delivered in it, the progress of the set-up."""
    async with session(pool) as connection:
        month = await store.measure_delivery(connection, viewer.owner, viewer.mode, since, until)
        return month, None if month.delivered else await onboarding.load_progress(connection, viewer)


async def _load_history(
    pool: Pool, viewer: Viewer, before: datetime, since: datetime, zone: str
) -> tuple[WalletSummary, int, dict[date, int], tuple[SubscriptionRecord, ...]]:
    """Return the wallet, the leads from `before` to `since`, the leads of each later day, and the subscriptions."""
    async with session(pool) as connection:
        return (
            await load_wallet_summary(connection, viewer),
            await store.count_shown(connection, viewer.owner, viewer.mode, before, since),
            await store.count_days(connection, viewer.owner, viewer.mode, since, zone),
            await directory_store.list_subscriptions(
                connection, TenantScope(business_id=viewer.owner, mode=viewer.mode), None, MOST_SUBSCRIPTIONS
            ),
        )


async def find_roi(request: AnyRequest, viewer: Viewer) -> RoiReport | None:
    """Return the comparison of exclusive and shared leads over the default half year; None in test mode."""
    if viewer.mode != "live":
        return None
    question = roi_question(usual(zone_of(viewer.zone).key, clock.now()))
    return await load_roi(services(request).reports, msgspec.structs.replace(question, business_id=viewer.owner))


def _change(month: DeliverySummary, earlier: int) -> tuple[str, str]:
    """Return the change against the 30 days before in words, and the tone in which to show it."""
    if not earlier:
        return f"last {DAYS} days", ""
    share = month.leads / earlier - 1
    if abs(share) < 0.005:
        return f"as many as in the {DAYS} days before", ""
    return (
        f"{'▲' if share > 0 else '▼'} {abs(share):.0%} compared with the {DAYS} days before",
        "good" if share > 0 else "warn",
    )


def _days_left(wallet_summary: WalletSummary, month: DeliverySummary) -> int | None:
    """Return for how many days the wallet lasts at the spending of the month; None if nothing was spent."""
    a_day = month.spent_minor / DAYS
    return int(max(0, wallet_summary.spendable_minor) / a_day) if a_day else None


def _chart(days: dict[date, int], first: date, last: date) -> Markup:
    span = [first + timedelta(days=at) for at in range((last - first).days + 1)]
    values = tuple(float(days.get(day, 0)) for day in span)
    return charts.line(
        "Leads per day",
        [f"{day:%-d %b}" for day in span],
        [charts.Series(name="Yours", values=values)],
        about=f"{sum(values):.0f} leads in {len(span)} days.",
    )


def won_words(report: RoiReport) -> str:
    """Return a sentence on the jobs won so far.

    It counts every reported job at once, while the estimate counts only weeks that have ended.
    """
    won = report.won
    if not won.jobs:
        return "No job won so far."
    text = f"{won.jobs:,} {'job' if won.jobs == 1 else 'jobs'} won so far, {money(won.value_minor, report.currency)}"
    if won.open_jobs:
        weeks = "a week that is" if won.open_jobs == 1 else "weeks that are"
        which = "" if won.jobs == 1 else f"{won.open_jobs:,} of them "
        text += f"; {which}in {weeks} still open and not yet in the estimate"
    if won.late_jobs:
        text += f"; {won.late_jobs:,} after a quarter of a year, which the estimate does not count"
    return f"{text}."


def draw_returns(report: RoiReport | None) -> Markup | None:
    """Draw the revenue for each unit spent on both kinds of lead, with intervals; None if neither is known."""
    if report is None:
        return None
    bars = []
    tones: dict[str, charts.Tone] = {"Exclusive": "a", "Shared": "b"}
    for name, figures in (("Exclusive", report.answer.exclusive), ("Shared", report.answer.shared)):
        figure = figures.revenue_per_unit if figures else None
        if figure is not None:
            low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
            bars.append(charts.Interval(name=name, low=low, middle=figure.value, high=high, tone=tones[name]))
    if not bars:
        return None
    return charts.intervals(
        "Revenue for each 1 spent",
        bars,
        show=lambda value: f"{value:.1f}\u00d7",
        reference=1.0,
        about="The bar is the range in which the true figure most likely lies. At the dashed line, revenue equals "
        "spending.",
    )


@post("/business/pause")
async def pause(request: AnyRequest) -> Response[bytes]:
    """Pause all active subscriptions, or resume all paused ones."""
    viewer, form = await submitted(request, PauseForm, CallerKind.business)
    scope = TenantScope(business_id=viewer.owner, mode=viewer.mode)
    pool = services(request).pool
    async with session(pool) as connection:
        subscriptions = await directory_store.list_subscriptions(connection, scope, None, MOST_SUBSCRIPTIONS)
    before, after, message = ("active", "paused", PAUSED) if form.pause else ("paused", "active", RESUMED)
    for subscription in _in_state(subscriptions, before):
        await directory_flow.switch_subscription(pool, viewer.actor, scope, subscription.id, after)
    return redirect(request, "/business", message)


# Live parts.


async def make_latest(request: AnyRequest, viewer: Viewer) -> str:
    """Render the newest leads for the overview."""
    return await _latest(request, viewer, LATEST)


async def make_feed(request: AnyRequest, viewer: Viewer) -> str:
    """Render the newest leads for the live feed page."""
    return await _latest(request, viewer, FEED)


async def _latest(request: AnyRequest, viewer: Viewer, most: int) -> str:
    app = services(request)
    async with session(app.pool) as connection:
        rows = await load_rows(connection, app.sealer, viewer, None, most)
    return partial(request, viewer, "business/latest_leads.html", rows=rows, listing=NEWEST_LEADS)


async def make_why(request: AnyRequest, viewer: Viewer) -> str:
    """Render the checks that explain why no leads arrive."""
    now: datetime = clock.now()
    async with session(services(request).pool) as connection:
        wallet_summary = await load_wallet_summary(connection, viewer)
        week = await store.count_shown(connection, viewer.owner, viewer.mode, now - timedelta(days=7), now)
        checks = await load_checks(request, connection, viewer, wallet_summary, week)
    return partial(request, viewer, "business/why.html", checks=checks)


FEED: Final = 25
"Leads on the page of the live feed."
LATEST_PART: Final = LivePart(name="business.latest", kinds=(CallerKind.business,), make=make_latest)
FEED_PART: Final = LivePart(name="business.feed", kinds=(CallerKind.business,), make=make_feed)
WHY_PART: Final = LivePart(name="business.why", kinds=(CallerKind.business,), make=make_why)


@get("/business/feed")
async def show_feed(request: AnyRequest) -> Response[bytes]:
    """Show the newest leads; each new lead appears as soon as it is delivered."""
    viewer = await visitor(request, CallerKind.business)
    return await business_page(request, viewer, "business/feed.html", feed=await show_part(request, viewer, FEED_PART))


handlers = (show_overview, pause, show_feed)
