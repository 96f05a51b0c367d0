"""Use cases of response contracts: show the contract of an endpoint, set it if its samples agree, take it away."""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, transaction
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.store import EndpointContract, TenantScope
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import Principal
from marketplace.text.faults import Fault, FaultCode
from routing.contract import Contract, Meaning
from routing.sample_answers import find_disagreements

MEANINGS: Final = {
    Meaning.accepted: "accepted",
    Meaning.refused: "refused",
    Meaning.duplicate: "refused as a person you had before",
    Meaning.try_later: "try again later",
    Meaning.not_understood: "not understood",
}


def contract_faults(contract: Contract) -> Iterator[Fault]:
    """Yield the faults of a contract: rules that state nothing, and samples that it reads otherwise."""
    for name in ("refused", "duplicate", "try_later", "accepted"):
        for position, rule in enumerate(getattr(contract, name)):
            if not rule.says_something:
                detail = "State a status, a place in the JSON, a text, or an empty body."
                yield Fault(pointer=f"/{name}/{position}", code=FaultCode.field_missing, detail=detail)
            elif rule.values and rule.path is None:
                detail = "Say at which place in the JSON these values stand."
                yield Fault(pointer=f"/{name}/{position}/path", code=FaultCode.field_missing, detail=detail)
    if not any(sample.expected is Meaning.accepted for sample in contract.samples):
        detail = "Add an answer of your server that means accepted: without one, no lead would ever be charged."
        yield Fault(pointer="/samples", code=FaultCode.field_missing, detail=detail)
    for disagreement in find_disagreements(contract):
        means = f"By these rules this answer means: {MEANINGS[disagreement.actual]}."
        if disagreement.position is None:
            detail = f"These rules accept an answer that may be an error, such as {disagreement.sample.body[:60]}…"
            yield Fault(pointer="/accepted", code=FaultCode.value_not_allowed, detail=detail)
        else:
            place = f"/samples/{disagreement.position}"
            yield Fault(pointer=place, code=FaultCode.value_not_allowed, detail=means)


async def load_contract(connection: Connection, reach: TenantScope, endpoint_id: UUID) -> EndpointContract:
    """Return the contract of a webhook. Raises NotFound, and Conflict for an endpoint that nothing is sent to."""
    stated = await directory_store.find_contract(connection, reach, endpoint_id)
    if stated is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    if stated.kind != "push":
        raise errors.Conflict("Only a webhook has a contract: nothing is sent to this endpoint.")
    return stated


async def set_contract(
    pool: Pool, caller: Principal, reach: TenantScope, endpoint_id: UUID, read: int, contract: Contract | None
) -> EndpointContract:
    """Set the contract of a webhook, or with None the one that every endpoint begins with; close its open alarms.

    The audit row holds the rules without the samples, so that each delivery can be judged again. Raises NotFound,
    KeyWrongMode, InvalidInput with every fault, and Conflict for another kind of endpoint or if the current version is
    not `read`, the one that the caller edited.
    """
    faults = () if contract is None else tuple(contract_faults(contract))
    if faults:
        raise errors.InvalidInput(faults)
    now = clock.now()
    async with transaction(pool) as connection:
        await directory_flow.load_endpoint(connection, caller, reach, endpoint_id)
        await load_contract(connection, reach, endpoint_id)
        if not await directory_store.mark_contract(connection, endpoint_id, read, contract):
            raise errors.Conflict("The contract was changed meanwhile. Read it again.")
        await directory_store.close_alarms(connection, endpoint_id, "contract", now)
        rules = "" if contract is None else _rules_text(contract)
        subject = ids.encode("whe", endpoint_id)
        await audit.record(connection, now, caller.key_id, "endpoint.contract", subject, version=read + 1, rules=rules)
        return await load_contract(connection, reach, endpoint_id)


def _rules_text(contract: Contract) -> str:
    return msgspec.json.encode(msgspec.structs.replace(contract, samples=())).decode()


async def close_shape_alarm(pool: Pool, caller: Principal, reach: TenantScope, endpoint_id: UUID) -> None:
    """Close the alarm about answers of a new shape: the owner has looked at them. Raises NotFound, KeyWrongMode."""
    now = clock.now()
    async with transaction(pool) as connection:
        await directory_flow.load_endpoint(connection, caller, reach, endpoint_id)
        await directory_store.close_alarms(connection, endpoint_id, "seen", now)
        await audit.record(connection, now, caller.key_id, "endpoint.alarm_seen", ids.encode("whe", endpoint_id))
