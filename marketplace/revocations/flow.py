"""Revoke a person's consent, one lead per transaction, and notify the business that was shown the lead.

    suppress the person → record the revocation → for each lead: lock → end it if it was not shown → notice → commit

The lock on the lead makes this safe at any time. An exposure was either committed before, and then its business gets a
notice, or it finds the lead ended.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from marketplace.database.db import Pool, session, transaction
from marketplace.directory.flow import SECRET_OVERLAP, suppress
from marketplace.erasure import store as erasure_store
from marketplace.erasure.flow import end_lead
from marketplace.notices import store as notices_store
from marketplace.notices.store import NoticeKind
from marketplace.revocations import store as revocations_store
from marketplace.revocations.store import Revocation, RevocationHook
from marketplace.runtime import clock, errors, ids
from marketplace.security import audit
from marketplace.security.auth import Principal
from marketplace.security.sealing import Sealer
from marketplace.webhook.signing import is_signed, new_secret
from routing.consent import Channel

REVOKED: Final = "revoked"
"Reason stored with a lead that ended because its person revoked consent."

MOST_LEADS: Final = 100
"Limit of leads that one call ends. A person has few; of more, the suppression stops the rest before they are shown."

OPERATOR_HOOK: Final = UUID(int=0)
"Owner of the operator's own hook."


async def revoke_person(
    pool: Pool,
    sealer: Sealer,
    caller: Principal,
    marks: tuple[str, ...],
    channels: tuple[Channel, ...],
    reason: str,
    message_id: str | None = None,
) -> Revocation:
    """Revoke the consent of a person who has one of `marks` (`phone:+1…`), of whom nothing need be known.

    A revocation of all channels (`channels` is empty) also suppresses a live caller's person. A provider revokes the
    consent in its own leads; a suppression holds for everybody's. The result does not say whether there is such a
    person. A message that is sent again returns the revocation of the first. Raises RateLimited, after the leads have
    ended, if a provider has suppressed too many people today.
    """
    refusal: errors.RateLimited | None = None
    try:
        if not channels and caller.mode == "live":
            await suppress(pool, sealer, caller, marks, reason)
    except errors.RateLimited as error:
        refusal = error
    keys = tuple(sealer.keyed_hash("suppression", mark) for mark in marks)
    revocation = await _record(pool, caller, channels, reason, message_id)
    async with session(pool) as connection:
        lead_ids = await erasure_store.list_leads_of_person(connection, keys, caller.mode, caller.owner_id, MOST_LEADS)
    for lead_id in lead_ids:
        await _revoke_lead(pool, caller, lead_id, revocation)
    if refusal is not None:
        raise refusal
    return revocation


async def revoke_lead(
    pool: Pool, caller: Principal, lead_id: UUID, channels: tuple[Channel, ...], reason: str
) -> Revocation:
    """Revoke the consent of a lead's person in this lead, and suppress the person if it is of all channels.

    The result is the same for a lead that does not exist or is not the caller's.
    """
    revocation = await _record(pool, caller, channels, reason, None)
    async with session(pool) as connection:
        exists = await erasure_store.find_lead(connection, lead_id, caller.mode, caller.owner_id)
    if exists:
        await _revoke_lead(pool, caller, lead_id, revocation, suppressed_for=reason)
    return revocation


async def _record(
    pool: Pool, caller: Principal, channels: tuple[Channel, ...], reason: str, message_id: str | None
) -> Revocation:
    """Record a revocation with its audit row, or return that of the same message."""
    revocation = Revocation(id=clock.new_id(), revoked_at=clock.now(), channels=tuple(sorted(set(channels))))
    async with transaction(pool) as connection:
        is_new = await revocations_store.insert_revocation(
            connection,
            revocation,
            requested_by=caller.key_id,
            provider_id=caller.owner_id,
            mode=caller.mode,
            reason=reason,
            message_id=message_id,
        )
        if not is_new and message_id is not None:
            earlier = await revocations_store.find_of_message(connection, caller.key_id, message_id)
            return revocation if earlier is None else earlier
        subject = ids.encode("rev", revocation.id)
        await audit.record(
            connection, revocation.revoked_at, caller.key_id, "consent.revoke", subject, channels=len(channels)
        )
    return revocation


async def _revoke_lead(
    pool: Pool, caller: Principal, lead_id: UUID, revocation: Revocation, *, suppressed_for: str | None = None
) -> None:
    """End the lead if it was not shown, else notify its business. Nothing happens to a lead that is settled already."""
    async with transaction(pool) as connection:
        await erasure_store.become_eraser(connection)
        state = await erasure_store.lock_lead(connection, lead_id)
        if await revocations_store.is_settled(connection, lead_id, revocation.channels):
            return
        now = clock.now()
        await end_lead(connection, lead_id, state, REVOKED, now)
        if suppressed_for is not None and not revocation.channels and caller.mode == "live":
            source = caller.kind if caller.owner_id is None else ids.encode("prov", caller.owner_id)
            await erasure_store.suppress_person(connection, lead_id, suppressed_for, source, now)
        detail = {"channels": list(revocation.channels or Channel)}
        notice_id = await notices_store.insert_notice(connection, lead_id, NoticeKind.revoked, now, detail)
        await revocations_store.insert_revoked_lead(connection, lead_id, revocation.id, state, notice_id)
        subject = ids.encode("lead", lead_id)
        await audit.record(
            connection,
            now,
            caller.key_id,
            "lead.revoke",
            subject,
            state=state,
            revocation=ids.encode("rev", revocation.id),
            notified=notice_id is not None,
        )


# Signed STOP messages


async def make_hook(pool: Pool, sealer: Sealer, caller: Principal) -> tuple[RevocationHook, str]:
    """Make a new secret for signed STOP messages, and return it. It cannot be read again.

    The previous secret stays valid for SECRET_OVERLAP.
    """
    now, secret = clock.now(), new_secret()
    owner_id = caller.owner_id or OPERATOR_HOOK
    async with transaction(pool) as connection:
        hook = await revocations_store.save_hook(
            connection, owner_id, caller.owner_id, sealer.seal_secret(owner_id, secret), now + SECRET_OVERLAP, now
        )
        subject = ids.encode("prov", owner_id) if caller.owner_id else "operator"
        await audit.record(connection, now, caller.key_id, "revocation_hook.make", subject)
    return hook, secret


async def check_signature(pool: Pool, sealer: Sealer, owner_id: UUID, headers: Mapping[str, str], body: bytes) -> None:
    """Verify the signature of a STOP message. Raises SignatureInvalid, also for an owner without a secret."""
    async with session(pool) as connection:
        hook = await revocations_store.find_hook(connection, owner_id)
    secrets = () if hook is None else sealer.open_secrets(owner_id, hook, clock.now())
    if not is_signed(secrets, headers, body):
        raise errors.SignatureInvalid(
            "Sign the body as Standard Webhooks 1.0 says, with the secret of POST /v1/revocation-hook, "
            "within five minutes of sending it."
        )
