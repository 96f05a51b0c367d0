"""Stages keep their identity under a new name, and no report in a business's own words is lost or misread."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from marketplace.feedback.flow import name_key
from marketplace.feedback.stages import StageChange, StagePlan, plan_stages
from marketplace.feedback.stages_store import PipelineStage
from marketplace.feedback.store import DispositionKind
from marketplace.runtime import clock
from tests.builders.feedback import Desk
from tests.marketplace.feedback.test_hook_and_file import load, secret_of, send

# --- the plan of a change ---------------------------------------------------------------------------------------------


def stored(plan: StagePlan) -> tuple[PipelineStage, ...]:
    """The stages of a plan as they are read again."""
    return tuple(
        PipelineStage(
            id=stage.id,
            stage=stage.stage,
            kind=stage.kind,
            colour=stage.colour,
            names=tuple(name for name, stage_id in plan.names.items() if stage_id == stage.id),
        )
        for stage in plan.stages
    )


def change(stage: str, stage_id: UUID | None = None, kind: str = "contacted") -> StageChange:
    return StageChange(stage=stage, id=stage_id, kind=DispositionKind(kind))


def test_a_renamed_stage_keeps_its_id_and_its_former_name() -> None:
    [first] = stored(plan_stages((), [change("Called")]))
    renamed = plan_stages([first], [change("Spoken to", first.id)])
    assert (renamed.stages[0].id, renamed.retired) == (first.id, ())
    assert renamed.names == {"spoken to": first.id, "called": first.id}


def test_a_former_name_means_the_stage_that_has_it_now() -> None:
    [first] = stored(plan_stages((), [change("Called")]))
    plan = plan_stages([first], [change("Spoken to", first.id), change("Called", kind="qualified")])
    assert plan.names["called"] == plan.stages[1].id != first.id


def test_names_of_an_ended_stage_mean_its_successor_or_nothing() -> None:
    first, second = stored(plan_stages((), [change("Called"), change("Offer")]))
    ended = plan_stages([first, second], [change("Offer")])
    assert (ended.retired, ended.names) == ((first.id,), {"offer": second.id})
    merged = plan_stages([first, second], [change("Offer")], {first.id: second.id})
    assert merged.names == {"offer": second.id, "called": second.id}


NAMES = st.lists(st.sampled_from("abcdefABC"), max_size=5, unique_by=name_key)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_after_any_changes_each_stage_is_meant_by_its_name_and_each_name_by_one_stage(steps: list[list[str]]) -> None:
    present: tuple[PipelineStage, ...] = ()
    for names in steps:
        plan = plan_stages(present, [change(name) for name in names])
        assert [plan.names[name_key(name)] for name in names] == [stage.id for stage in plan.stages]
        assert len({stage.id for stage in plan.stages}) == len(names)
        assert set(plan.names.values()) <= {stage.id for stage in plan.stages}
        assert {stage.id for stage in present} == {*plan.retired} | {
            stage.id for stage in present if stage.id in {new.id for new in plan.stages}
        }
        present = stored(plan)


# --- reports while stages change --------------------------------------------------------------------------------------


async def set_stages(shop: Desk, *stages: dict[str, Any]) -> list[dict[str, Any]]:
    reply = await shop.call("PUT", "/v1/pipeline", {"stages": list(stages)})
    assert reply.status_code == 200, reply.text
    rows: list[dict[str, Any]] = reply.json()["stages"]
    return rows


async def test_a_new_business_has_the_usual_stages(shop: Desk) -> None:
    created = await shop.call(
        "POST", "/v1/businesses", {"name": "New", "zone": "America/Chicago", "currency": "USD"}, by="operator"
    )
    assert created.status_code == 201, created.text
    counted = await shop.market.value(
        "select string_agg(s.kind, ' ' order by s.position) from pipeline_stage s "
        "join business b on b.id = s.business_id where b.name = 'New'"
    )
    assert counted == "contacted appointment quoted won lost unreachable"


async def test_a_report_by_the_old_name_is_recorded_in_the_renamed_stage(shop: Desk) -> None:
    lead = await shop.sold()
    [stage] = await set_stages(shop, {"stage": "Angebot", "kind": "quoted"})
    [renamed] = await set_stages(shop, {"id": stage["id"], "stage": "Offer sent", "kind": "quoted"})
    assert (renamed["id"], renamed["names"]) == (stage["id"], ["angebot", "offer sent"])
    assert (await shop.tell(lead, stage="Angebot")).json()["kind"] == "quoted"
    same = "select count(distinct stage_id) = 1 from disposition join pipeline_stage s on s.id = stage_id"
    assert await shop.market.value(same)


async def test_a_stage_of_another_business_can_be_neither_renamed_nor_ended(shop: Desk) -> None:
    [stage] = await set_stages(shop, {"stage": "Ours", "kind": "won"})
    theirs = {"stages": [{"id": stage["id"], "stage": "Theirs", "kind": "lost"}]}
    reply = await shop.call("PUT", "/v1/pipeline", theirs, by="other")
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "/stages/0/id")
    assert (await shop.call("GET", "/v1/pipeline")).json()["stages"] == [stage]


async def test_an_unknown_id_of_a_stage_is_refused_where_it_stands(shop: Desk) -> None:
    reply = await shop.call("PUT", "/v1/pipeline", {"stages": [{"id": "stg_1", "stage": "A", "kind": "won"}]})
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "/stages/0/id")


async def test_a_report_without_a_stage_is_refused_kept_and_recorded_when_its_name_is_mapped(shop: Desk) -> None:
    lead, secret = await shop.sold(), await secret_of(shop)
    body = {"lead_id": lead, "stage": "Termin", "note": "after six"}
    replies = [await send(shop, secret, body, "crm-1") for _ in range(2)]
    assert [reply.json()["errors"][0]["code"] for reply in replies] == ["stage_unknown"] * 2
    file = await load(shop, f"lead_id,stage,happened_at\n{lead},Termin,{clock.now().isoformat()}\n")
    assert file.json()["rejected_count"] == 1
    assert (await shop.shown(lead))["dispositions"] == []
    await set_stages(shop, {"stage": "Met", "kind": "contacted", "names": ["TERMIN"]})
    dispositions = (await shop.shown(lead))["dispositions"]
    assert sorted((each["source"], each["kind"], each["note"]) for each in dispositions) == [
        ("csv", "contacted", None),
        ("webhook", "contacted", "after six"),
    ]
    assert await shop.market.value("select count(*) from unmapped_report") == 0
    assert (await send(shop, secret, body, "crm-1")).status_code == 200


async def test_a_kept_report_that_does_not_fit_its_stage_stays_with_its_fault(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.tell(lead, stage="Signed", event_id="e1")
    await set_stages(shop, {"stage": "Signed", "kind": "won"})
    assert "value of the job" in await shop.market.value("select fault from unmapped_report")
    corrected = await shop.tell(lead, stage="Signed", event_id="e1", value_minor=5)
    assert corrected.status_code == 201


async def test_a_kept_report_about_an_erased_person_has_no_note(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.tell(lead, stage="Later", event_id="e1", note="Robin is away")
    assert (await shop.call("POST", "/v1/erasures", {"lead_id": lead, "reason": "asked"}, by="operator")).is_success
    await shop.tell(lead, stage="Later", event_id="e2", note="Robin again")
    assert await shop.market.value("select count(*) filter (where note is null) = 2 from unmapped_report")


async def test_no_report_is_lost_while_its_stage_is_mapped(shop: Desk) -> None:
    lead = await shop.sold()
    await shop.delivered_at(lead, clock.now() - timedelta(hours=3))
    told = [shop.tell(lead, stage="Open", event_id=f"e{number}") for number in range(12)]
    mapped = set_stages(shop, {"stage": "Open", "kind": "contacted"})
    await asyncio.gather(*told[:6], mapped, *told[6:])
    assert await shop.market.value("select count(*) from disposition") == 12
    assert await shop.market.value("select count(*) from unmapped_report") == 0
