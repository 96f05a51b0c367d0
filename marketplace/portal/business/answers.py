"""Page of an endpoint's response contract: what the answers of the business's server mean, tried on sample answers."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from marketplace.database.db import session
from marketplace.directory import contracts
from marketplace.directory import store as directory_store
from marketplace.directory.store import AnswerAlarm
from marketplace.portal.business.delivery import caller_of, scope_of
from marketplace.portal.business.rule_lines import RuleFault, read_rule, write_rule
from marketplace.portal.business.wallet_summary import business_page
from marketplace.portal.forms import FormFields, changing, fill, label, show_again, show_form, split_lines
from marketplace.portal.frame import redirect
from marketplace.portal.session import Viewer, visitor
from marketplace.runtime import errors, ids
from marketplace.security.auth import CallerKind
from marketplace.text.faults import Fault, FaultCode
from marketplace.web.http import AnyRequest, path_id, services
from routing.contract import OWN_FORMAT, AnswerRule, AnswerSample, Contract, Meaning
from routing.sample_answers import meaning_of

HOME: Final = "/business/delivery/{endpoint_id:str}/answers"
MOST_ALARMS: Final = 10
LISTS: Final = ("accepted", "refused", "duplicate", "try_later")
WORDS: Final = Contract(
    refused=OWN_FORMAT.refused,
    accepted=(
        *OWN_FORMAT.accepted,
        *(AnswerRule(text=word) for word in ("ok", "accepted", "received", "success", "thank you")),
    ),
    reason="reason",
    samples=(AnswerSample(expected=Meaning.accepted, content_type="text/plain", body="OK"),),
)
STARTS: Final[Mapping[str, tuple[str, Contract]]] = {
    "own": (
        "Our own format",
        msgspec.structs.replace(
            OWN_FORMAT,
            samples=(
                AnswerSample(expected=Meaning.accepted, body='{"status": "accepted"}'),
                AnswerSample(expected=Meaning.refused, body='{"status": "refused", "reason": "outside_area"}'),
            ),
        ),
    ),
    "words": ("A word such as OK", WORDS),
}
"Contracts from which a business may start."
EXPECTED: Final = tuple((str(meaning), words.capitalize()) for meaning, words in contracts.MEANINGS.items())
SAMPLE_FIELDS: Final = 6
"Sample answers that the form has fields for."

RuleLines = Annotated[str, Meta(max_length=4_000, extra={"kind": "textarea", "rows": 4, "required": False})]
Place = Annotated[str, Meta(max_length=200)]


class ContractForm(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of a contract, one in a line, and the places of what an answer names."""

    version: int
    act: Literal["save", "reset", "try", "seen"] = "save"
    accepted: Annotated[RuleLines, label("Accepted", "The lead is yours and is charged.")] = ""
    refused: Annotated[RuleLines, label("Refused", "You do not want the lead. It is not charged.")] = ""
    duplicate: Annotated[RuleLines, label("Had it already", "Refused because you have this person already.")] = ""
    try_later: Annotated[RuleLines, label("Try later", "We send the same lead again later.")] = ""
    reason: Annotated[Place | None, label("Place of the reason", "In the JSON of a refusal.")] = None
    reference: Annotated[Place | None, label("Place of your number", "We store and show it with the lead.")] = None
    price: Annotated[Place | None, label("Place of a price", "We store it. You pay the price that was agreed.")] = None


class SampleForm(msgspec.Struct, frozen=True, kw_only=True):
    """A sample answer of the server."""

    body: Annotated[str, Meta(max_length=4_000)] = ""
    status: Annotated[int, Meta(ge=200, le=599)] = 200
    content_type: Annotated[str, Meta(max_length=100)] = "application/json"
    expected: Meaning | None = None


def _values(contract: Contract) -> dict[str, object] | None:
    """Return the fields of the form that state a contract, or None if a rule does not fit in a line."""
    values: dict[str, object] = {"reason": contract.reason, "reference": contract.reference, "price": contract.price}
    for name in LISTS:
        lines = [write_rule(rule) for rule in getattr(contract, name)]
        if None in lines:
            return None
        values[name] = "\n".join(line for line in lines if line is not None)
    return {name: value or "" for name, value in values.items()}


def read_contract(form: ContractForm, fields: FormFields) -> Contract:
    """Return the contract that a form states. Raises InvalidInput with the faults of all lines and samples."""
    faults: list[Fault] = []
    rules: dict[str, list[AnswerRule]] = {name: [] for name in LISTS}
    for name in LISTS:
        for line in split_lines(getattr(form, name)):
            try:
                rules[name].append(read_rule(line))
            except RuleFault as error:
                faults.append(Fault(pointer=f"/{name}", code=FaultCode.value_not_allowed, detail=str(error)))
    samples = [sample for number in range(SAMPLE_FIELDS) if (sample := _read_sample(fields, number)) is not None]
    if faults:
        raise errors.InvalidInput(tuple(faults))
    document = {**rules, "samples": samples, "reason": form.reason, "reference": form.reference, "price": form.price}
    try:
        return msgspec.convert(document, Contract)
    except msgspec.ValidationError as error:
        detail = "Write places such as result.items[0].id, and at most 20 rules in each list."
        fault = Fault(pointer="/reference", code=FaultCode.value_not_allowed, detail=detail)
        raise errors.InvalidInput((fault,)) from error


def _read_sample(fields: FormFields, number: int) -> AnswerSample | None:
    """Return the sample answer in the fields of this number, or None if its meaning is not chosen."""
    names = ("body", "status", "content_type", "expected")
    sample = fill(SampleForm, {name: texts for name in names if (texts := fields.get(f"{name}_{number}"))})
    if sample.expected is None:
        return None
    return AnswerSample(
        expected=sample.expected, status=sample.status, content_type=sample.content_type, body=sample.body
    )


@get(HOME)
async def show_answers(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Show what the answers of the endpoint's server mean, and the form to change it."""
    viewer = await visitor(request, CallerKind.business)
    return await _answers_page(request, viewer, path_id("whe", endpoint_id))


async def _answers_page(
    request: AnyRequest, viewer: Viewer, endpoint_id: UUID, tried: Contract | None = None
) -> Response[bytes]:
    async with session(services(request).pool) as connection:
        endpoint = await directory_store.find_endpoint(connection, scope_of(viewer), endpoint_id)
        stated = await contracts.load_contract(connection, scope_of(viewer), endpoint_id)
        alarms = await directory_store.list_answer_alarms(connection, viewer.owner, MOST_ALARMS)
    start = STARTS.get(request.query_params.get("start", ""))
    contract = start[1] if start else stated.contract or STARTS["own"][1]
    values = _values(contract)
    return await business_page(
        request,
        viewer,
        "business/answers.html",
        endpoint=endpoint,
        stated=stated,
        form=show_form(ContractForm, values or {}),
        written_by_lines=values is not None,
        contract_json=msgspec.json.format(msgspec.json.encode(contract), indent=2).decode(),
        samples=(*contract.samples, *[None] * SAMPLE_FIELDS)[:SAMPLE_FIELDS],
        expected=EXPECTED,
        starts=STARTS,
        alarms=_alarms_of(alarms, endpoint_id),
        results=_try(tried) if tried else (),
    )


def _try(contract: Contract) -> list[tuple[AnswerSample, str, bool]]:
    """Return each sample of a contract with its meaning in words, and whether that is the expected one."""
    meanings = [(sample, meaning_of(contract, sample)) for sample in contract.samples]
    return [(sample, contracts.MEANINGS[meaning], meaning is sample.expected) for sample, meaning in meanings]


def _alarms_of(alarms: tuple[AnswerAlarm, ...], endpoint_id: UUID) -> list[AnswerAlarm]:
    return [alarm for alarm in alarms if alarm.endpoint_id == endpoint_id]


@post(HOME)
async def change_answers(request: AnyRequest, endpoint_id: FromPath[str]) -> Response[bytes]:
    """Save what answers mean, try it on the samples, go back to our own format, or close an alarm."""
    viewer, fields = await changing(request, CallerKind.business)
    internal_id, app = path_id("whe", endpoint_id), services(request)
    caller, scope = caller_of(viewer), scope_of(viewer)
    try:
        form = fill(ContractForm, fields)
        if form.act == "seen":
            await contracts.close_shape_alarm(app.pool, caller, scope, internal_id)
            return redirect(
                request, _address(internal_id), "Noted. We tell you when your server answers in yet another way."
            )
        if form.act == "reset":
            await contracts.set_contract(app.pool, caller, scope, internal_id, form.version, None)
            return redirect(request, _address(internal_id), "Your server's answers are read in our own format again.")
        contract = read_contract(form, fields)
        if form.act == "try":
            return await show_again(request, fields, None, _answers_page(request, viewer, internal_id, contract))
        await contracts.set_contract(app.pool, caller, scope, internal_id, form.version, contract)
    except errors.InvalidInput as error:
        return await show_again(
            request, fields, error, _answers_page(request, viewer, internal_id), faults=_field_faults(error)
        )
    except errors.Conflict as error:
        return await show_again(request, fields, error, _answers_page(request, viewer, internal_id))
    return redirect(request, _address(internal_id), "Saved. From now on your server's answers are read by these rules.")


def _address(endpoint_id: UUID) -> str:
    return f"/business/delivery/{ids.encode('whe', endpoint_id)}/answers"


def _field_faults(error: errors.InvalidInput) -> dict[str, str]:
    """Return the sentence for each field: a fault of a sample stands at its body, one of a rule at its list."""
    faults: dict[str, str] = {}
    for fault in error.faults:
        name, _, position = fault.pointer.strip("/").partition("/")
        field = f"body_{position or 0}" if name == "samples" else name
        faults.setdefault(field, fault.detail)
    return faults


handlers: tuple[Any, ...] = (show_answers, change_answers)
