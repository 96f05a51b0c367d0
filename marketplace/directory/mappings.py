"""Use cases of mapped endpoints: show, set and prove the request that takes leads to a business's own software."""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from marketplace.database.db import Connection, Pool, session, transaction
from marketplace.directory import contracts
from marketplace.directory import flow as directory_flow
from marketplace.directory import store as directory_store
from marketplace.directory.challenge import obstacle_words
from marketplace.directory.store import Endpoint, EndpointMapping, TenantScope
from marketplace.mapping.requests import mapping_faults
from marketplace.mapping.sending import example_body, send_mapped
from marketplace.mapping.shapes import ClientCredentials, Credentials, RequestMapping
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import Principal
from marketplace.security.sealing import Sealer
from marketplace.text.faults import Fault
from marketplace.webhook.address import AddressRules, UrlRefusal, address_key
from marketplace.webhook.signing import sign
from routing.contract import OWN_FORMAT
from routing.delivery import AttemptOutcome, NotSent, classify

NOT_PROVEN: Final = (
    "test_lead_not_accepted: your software did not confirm a test lead. See its answer by a test lead on the page "
    "Delivery, and say what its answers mean."
)


def faults_of(mapping: RequestMapping, credentials: Credentials | None, guard: AddressRules) -> Iterator[Fault]:
    """Yield the faults of a mapping and its credentials."""
    yield from mapping_faults(mapping, credentials)
    if isinstance(credentials, ClientCredentials):
        target = guard.check(credentials.token_url)
        if isinstance(target, UrlRefusal):
            detail = directory_flow.URL_ADVICE[target.fault]
            yield Fault(pointer="/credentials/token_url", code=target.fault, detail=detail)


async def load_mapping(connection: Connection, reach: TenantScope, endpoint_id: UUID) -> EndpointMapping:
    """Return the mapping of a webhook. Raises NotFound, and Conflict for an endpoint that nothing is sent to."""
    stated = await directory_store.find_mapping(connection, reach, endpoint_id)
    if stated is None:
        raise errors.NotFound(directory_flow.NOT_THERE)
    if stated.kind != "push" or stated.url is None:
        raise errors.Conflict("Nothing is sent to this endpoint, so it has no request to change.")
    return stated


def open_credentials(sealer: Sealer, endpoint_id: UUID, stated: EndpointMapping) -> Credentials | None:
    """Return the plain credentials of an endpoint, or None if it has none."""
    if stated.credentials is None:
        return None
    plain = sealer.open_credentials(endpoint_id, stated.credentials)
    credentials: Credentials = msgspec.json.decode(plain, type=Credentials)
    return credentials


async def set_mapping(
    pool: Pool,
    sealer: Sealer,
    guard: AddressRules,
    caller: Principal,
    reach: TenantScope,
    endpoint_id: UUID,
    read: int,
    mapping: RequestMapping | None,
    credentials: Credentials | msgspec.UnsetType | None,
) -> EndpointMapping:
    """Set the request of a webhook, or with None our own one again. Credentials that are unset stay as they are.

    The audit row names the version, the format and the kind of credentials, and neither the template nor a secret.
    Raises NotFound, KeyWrongMode, InvalidInput with every fault, EndpointShared, and Conflict for another kind of
    endpoint or if the current version is not `read`, the one that the caller edited.
    """
    now = clock.now()
    async with transaction(pool) as connection:
        await directory_flow.load_endpoint(connection, caller, reach, endpoint_id)
        stated = await load_mapping(connection, reach, endpoint_id)
        login = open_credentials(sealer, endpoint_id, stated) if credentials is msgspec.UNSET else credentials
        if mapping is None:
            login = None
        elif faults := tuple(faults_of(mapping, login, guard)):
            raise errors.InvalidInput(faults)
        box = None if login is None else sealer.seal_credentials(endpoint_id, msgspec.json.encode(login))
        key = _account_key(sealer, guard, stated.url or "", login)
        if not await directory_store.mark_mapping(connection, endpoint_id, read, mapping, box, key):
            raise errors.Conflict("The request was changed meanwhile. Read it again.")
        kind = None if login is None else msgspec.to_builtins(login)["type"]
        body_format = None if mapping is None else mapping.format.value
        subject = ids.encode("whe", endpoint_id)
        await audit.record(
            connection,
            now,
            caller.key_id,
            "endpoint.mapping",
            subject,
            version=read + 1,
            format=body_format,
            credentials=kind,
        )
        return await load_mapping(connection, reach, endpoint_id)


def _account_key(sealer: Sealer, guard: AddressRules, url: str, credentials: Credentials | None) -> str | None:
    """Return what identifies the account behind an address: with credentials, the same URL serves many businesses."""
    target = guard.check(url)
    if isinstance(target, UrlRefusal):
        return None
    key = address_key(target)
    if credentials is None:
        return key
    return f"{key}#{sealer.keyed_hash('account', msgspec.json.encode(credentials).decode()).hex()}"


async def prove_mapped(
    pool: Pool, sealer: Sealer, guard: AddressRules, caller: Principal, reach: TenantScope, endpoint_id: UUID
) -> Endpoint:
    """Send an invented lead to a mapped endpoint, and make the endpoint active if its software accepts it.

    Raises NotFound, KeyWrongMode, ChallengeFailed, EndpointShared, and Conflict if it was switched in the meantime.
    """
    async with session(pool) as connection:
        endpoint = await directory_flow.load_endpoint(connection, caller, reach, endpoint_id)
        stated = await load_mapping(connection, reach, endpoint_id)
        contract = (await contracts.load_contract(connection, reach, endpoint_id)).contract or OWN_FORMAT
        sealed = await directory_store.load_secrets(connection, endpoint_id)
    if stated.mapping is None or stated.url is None:
        raise errors.Conflict("This endpoint gets our own webhook: verify it by the challenge.")
    credentials, now = open_credentials(sealer, endpoint_id, stated), clock.now()
    secrets, event_id = sealer.open_secrets(endpoint_id, sealed, now), ids.encode("evt", clock.new_id())
    _, attempt = await send_mapped(
        stated.url,
        guard,
        stated.mapping,
        credentials,
        example_body(stated.mapping),
        lambda body: sign(secrets, event_id, now, body),
    )
    if isinstance(attempt.observation, NotSent):
        raise errors.ChallengeFailed(obstacle_words(attempt.observation.reason))
    if classify(attempt.observation, True, contract).outcome is not AttemptOutcome.accepted:
        raise errors.ChallengeFailed(NOT_PROVEN)
    key = _account_key(sealer, guard, stated.url, credentials)
    async with transaction(pool) as connection:
        if not await directory_store.mark_endpoint_verified(connection, endpoint_id, endpoint.state, now, key):
            raise errors.Conflict("The endpoint was switched meanwhile. Read it again.")
        await audit.record(connection, now, caller.key_id, "endpoint.verify", ids.encode("whe", endpoint_id))
        return await directory_flow.load_endpoint(connection, caller, reach, endpoint_id)


async def verify_endpoint(
    pool: Pool, sealer: Sealer, guard: AddressRules, caller: Principal, reach: TenantScope, endpoint_id: UUID
) -> Endpoint:
    """Prove an endpoint: by a test lead if it has a mapping, else by a challenge. Raises what the two raise."""
    async with session(pool) as connection:
        stated = await directory_store.find_mapping(connection, reach, endpoint_id)
    if stated is not None and stated.mapping is not None:
        return await prove_mapped(pool, sealer, guard, caller, reach, endpoint_id)
    return await directory_flow.verify_endpoint(pool, sealer, guard, caller, reach, endpoint_id)


def preview(mapping: RequestMapping, credentials: Credentials | None, guard: AddressRules) -> str:
    """Return the body for an invented lead as text. Raises InvalidInput with every fault of the mapping."""
    faults = tuple(faults_of(mapping, credentials, guard))
    if faults:
        raise errors.InvalidInput(faults)
    return example_body(mapping).decode()
