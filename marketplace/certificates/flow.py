"""Claim the certificates of a lead before it is awarded.

    load the lead and its sealed claims → ask each service (no transaction open) → lock the lead, record every result

The lead's own row is the queue: the decision lets it wait, this makes it due again. A claim may be repeated, because
the services answer a second one like the first. It compares the contact as it was corrected by then; a later correction
takes the verification away, because nothing that is kept could be compared with it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from marketplace.certificates import store as certificates_store
from marketplace.certificates.services import (
    CertificateClaim,
    ClaimReason,
    ClaimResult,
    ServiceAccount,
    compose_claim,
    judge_claim,
)
from marketplace.certificates.store import ClaimCase, PendingCertificate
from marketplace.database.db import Pool, session, transaction
from marketplace.rules.catalog import Catalog
from marketplace.runtime import clock, ids
from marketplace.runtime.settings import Settings
from marketplace.security.sealing import SealedContact, Sealer
from marketplace.webhook.address import AddressRules
from marketplace.webhook.transport import ConnectionInfo, WebhookMessage, post
from routing.certificate import CertificateKind, CertificatePolicy, CertificateState, next_claim_at
from routing.lifecycle import LeadState

CLAIM_SECONDS: Final = 10.0
"Time for one attempt; two services after each other stay below the lease of a lead, 30 seconds."


def accounts_of(settings: Settings) -> dict[CertificateKind, ServiceAccount]:
    """Return the operator's accounts at the services, without those that have no key or no address."""
    configured = {
        CertificateKind.trustedform: (settings.trustedform_url, settings.trustedform_key),
        CertificateKind.jornaya: (settings.jornaya_url, settings.jornaya_key),
    }
    return {
        kind: ServiceAccount(url=url.rstrip("/"), key=key) for kind, (url, key) in configured.items() if url and key
    }


class Claims:
    """Claims the certificates of one lead at a time. Every call may be repeated."""

    def __init__(
        self,
        pool: Pool,
        catalog: Catalog,
        sealer: Sealer,
        guard: AddressRules,
        accounts: Mapping[CertificateKind, ServiceAccount],
    ) -> None:
        self._pool = pool
        self._catalog = catalog
        self._sealer = sealer
        self._guard = guard
        self._accounts = accounts

    async def claim(self, lead_id: UUID) -> bool:
        """Claim the pending certificates of a lead; return whether none is pending any more.

        Otherwise the lead is due again at the next attempt.
        """
        async with session(self._pool) as connection:
            case = await certificates_store.find_claim_case(connection, lead_id)
            pending = await certificates_store.read_certificates(connection, lead_id)
        if case is None or not pending:
            return False
        rules = await self._catalog.current()
        policy = rules.verticals[case.vertical_id].definition.certificate
        results = {certificate.kind: await self._ask(case, certificate) for certificate in pending}
        return await self._record(case, policy, pending, results)

    async def _ask(self, case: ClaimCase, pending: PendingCertificate) -> ClaimResult:
        """Make one attempt at the service of a certificate."""
        account = self._accounts.get(pending.kind)
        if account is None:
            return ClaimResult(state=CertificateState.unanswered, reason=ClaimReason.no_account)
        sealed = SealedContact(
            box=pending.box,
            wrapped=pending.wrapped,
            master_key_id=pending.master_key_id,
            corrections=pending.corrections,
        )
        claim = msgspec.json.decode(self._sealer.open_claim(case.lead_id, sealed), type=CertificateClaim)
        reference, vendor = ids.encode("lead", case.lead_id), ids.encode("prov", case.provider_id)
        url, message = compose_claim(pending.kind, account, claim, reference, vendor)

        async def send(_: ConnectionInfo) -> WebhookMessage:
            return message

        attempt = await post(url, guard=self._guard, on_connected=send, deadline_seconds=CLAIM_SECONDS)
        return judge_claim(pending.kind, attempt.observation, claim)

    async def _record(
        self,
        case: ClaimCase,
        policy: CertificatePolicy,
        pending: tuple[PendingCertificate, ...],
        results: Mapping[CertificateKind, ClaimResult],
    ) -> bool:
        """Write every result, and when the lead is due again; return whether no certificate is pending any more."""
        now = clock.now()
        next_times: list[datetime] = []
        async with transaction(self._pool) as connection:
            lead_state = await certificates_store.lock_lead(connection, case.lead_id)
            for certificate in pending:
                result = results[certificate.kind]
                state, first_at = result.state, certificate.first_tried_at or now
                next_at = next_claim_at(policy, certificate.attempts + 1, first_at, now) if state is None else None
                if next_at is not None:
                    next_times.append(next_at)
                    await certificates_store.note_attempt(connection, case.lead_id, certificate.kind, result, now)
                    continue
                final = state or CertificateState.unanswered
                await certificates_store.settle(
                    connection, case.lead_id, certificate.kind, final, result, certificate.revision, now
                )
            if next_times or lead_state is LeadState.prospect:
                await certificates_store.mark_lead_due(connection, case.lead_id, min(next_times, default=now))
        return not next_times
