"""The commands `marketplace audit verify` for the audit chain, and `marketplace receipt verify` for signed documents.

These are receipts of leads and proofs of deletion.
"""

import asyncio
import base64
import os
import sys
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import asyncpg
import msgspec
import rich_click as click

from marketplace.database.db import connect
from marketplace.database.embedded import engines
from marketplace.receipts.flow import DeletionProof, PublicKey, Receipt, ReceiptFault, check
from marketplace.runtime.settings import Settings, StartError, load_existing
from marketplace.runtime.terminal import JSON_FILE, write_json
from marketplace.security import audit
from marketplace.security.audit import ChainFault, ChainFinding, ChainReport

ROWS_SHOWN: Final = 20
CONNECT_SECONDS: Final = 10.0
KEY_LIMIT: Final = 4096
"Limit of bytes that are read from the address of the published key."


SENTENCES: Final = {
    ChainFault.head_missing: "the chain does not contain the head that you kept: its end was cut off or replaced",
    ChainFault.block_missing: "is missing",
    ChainFault.block_changed: "was changed, or does not follow the one before it",
    ChainFault.row_changed: "was changed after it was sealed",
    ChainFault.row_deleted: "was deleted after it was sealed",
    ChainFault.row_reordered: "was moved to another transaction after it was sealed",
    ChainFault.row_inserted_late: "was inserted into a block that had been sealed",
    ChainFault.row_unsealed: "has waited for its seal for over a minute: is a worker running?",
    ChainFault.move_unrecorded: "is not where its recorded moves lead",
}
REFUSALS: Final = {
    ReceiptFault.unreadable: "This is neither a receipt nor a proof of deletion.",
    ReceiptFault.other_key: "The document was signed with another key than this one.",
    ReceiptFault.changed: "The document was changed after it was signed.",
}


@click.group("audit")
def audit_() -> None:
    """Check the record of who changed what."""


@audit_.command("verify")
@click.option("--head", metavar="HASH", help="A head that you kept from an earlier run; it must still be in the chain.")
@JSON_FILE
def verify_audit(head: str | None, json_file: Path | None) -> None:
    """Recompute every seal and every row's digest, and name each row that is not what was sealed.

    Safe on a live system. Keep the head that it prints where nobody who runs the database can change it.
    """
    kept_head = head.lower() if head else None
    report = asyncio.run(_verify(load_existing(os.environ), kept_head))
    for finding in report.named[:ROWS_SHOWN]:
        click.echo(_describe_finding(finding))
    if report.findings > ROWS_SHOWN:
        click.echo(f"and {report.findings - ROWS_SHOWN:,} more")
    changed_blocks = sum(finding.fault is ChainFault.block_changed for finding in report.named)
    if report.blocks and changed_blocks == report.blocks:
        click.echo("No block fits its seal: is this the master key that they were sealed with?")
    examined = f"{report.rows:,} rows, {report.blocks:,} blocks, {report.seconds:.2f} s"
    click.echo(f"{report.findings:,} findings in {examined}.")
    click.echo(f"Head: {report.head or 'none yet'} (block {report.head_block:,})")
    write_json(json_file, report)
    if report.findings:
        sys.exit(1)


@click.group()
def receipt() -> None:
    """Check a receipt of who was shown a lead, or a proof of deletion."""


@receipt.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--key", metavar="BASE64", help="The published key.")
@click.option("--url", metavar="URL", help="The address of the marketplace, from which its published key is fetched.")
@JSON_FILE
def verify_receipt(file: Path, key: str | None, url: str | None, json_file: Path | None) -> None:
    """Check the signature of the receipt or proof of deletion in FILE. With --key, this works offline."""
    if (key is None) == (url is None):
        raise click.UsageError("Give either --key or --url.")
    public_key = _read_key(key) if key is not None else _fetch_key(str(url))
    outcome = check(file.read_bytes(), public_key)
    if isinstance(outcome, ReceiptFault):
        click.echo(REFUSALS[outcome], err=True)
        write_json(json_file, {"holds": False, "fault": outcome})
        sys.exit(1)
    if isinstance(outcome, DeletionProof):
        click.echo(_describe_proof(outcome))
        write_json(json_file, {"holds": True, "proof": outcome})
        return
    click.echo(_describe_receipt(outcome))
    write_json(json_file, {"holds": True, "receipt": outcome})


def _describe_receipt(content: Receipt) -> str:
    """Return the receipt in sentences: the lead, the business, the fields, the proof of arrival, and the audit seal."""
    business = f"{content.business.name} ({content.business.id})" if content.business else "one business"
    arrival = (
        f"Arrived at {content.evidence.at} ({content.evidence.kind})." if content.evidence else "No proof of arrival."
    )
    return (
        f"The receipt holds. {content.lead} ({content.vertical}, {content.mode}) was shown to {business}"
        f" at {content.exposed_at} by {content.channel}: {', '.join(content.fields)}. {arrival}\n"
        f"Times shown to anybody: {content.exclusive.exposures}. Audit block {content.chain.block}, position"
        f" {content.chain.position}, seal {content.chain.seal}."
    )


def _describe_proof(content: DeletionProof) -> str:
    """Return the proof in sentences: the request, and each lead with the business that was told."""
    leads = "1 lead" if len(content.leads) == 1 else f"{len(content.leads):,} leads"
    lines = [
        f"The proof holds. For {content.deletion_request} ({content.mode}), received at {content.received_at} with the"
        f" deadline {content.deadline_at}, {leads} had been erased at {content.erased_at}."
    ]
    for lead in content.leads:
        notice = "No business was shown it."
        if lead.business is not None:
            answer = f"acknowledged at {lead.acknowledged_at}" if lead.acknowledged_at else "not acknowledged in time"
            notice = f"{lead.business.name} ({lead.business.id}) was told at {lead.notified_at}: {answer}."
        lines.append(f"{lead.lead} was erased at {lead.erased_at}. {notice}")
    return "\n".join(lines)


def _describe_finding(finding: ChainFinding) -> str:
    """Return a finding as a sentence that begins with its row or block."""
    where = "" if finding.block is None else f" in block {finding.block}, position {finding.position},"
    if finding.table is not None:
        subject = f"{finding.table} {finding.id}{where} "
    else:
        subject = "" if finding.block is None else f"block {finding.block} "
    return subject + SENTENCES[finding.fault]


async def _verify(settings: Settings, head: str | None) -> ChainReport:
    """Verify the chain with the engines running. Raises StartError if it cannot be read."""
    async with engines(settings) as running:
        try:
            connection = await connect(
                running.database_url, "marketplace_reports", master_key=settings.master_key, name="marketplace_audit"
            )
            try:
                return await audit.verify(connection, audit.seal_key(settings.master_key), head)
            finally:
                connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise StartError(
                "audit_impossible",
                f"The audit chain cannot be read ({type(error).__name__}).",
                "Run: marketplace doctor, which says what is wrong with the database.",
            ) from error


def _read_key(text: str) -> bytes:
    """Return the 32 bytes of a public key in base64. Raises StartError."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise StartError("receipt_key_malformed", "This is not the base64 of 32 bytes.", "Copy public_key whole.")
    return key


def _fetch_key(url: str) -> bytes:
    """Return the key that the marketplace at `url` publishes. Raises StartError."""
    if not url.startswith(("https://", "http://")):
        raise StartError("receipt_key_unknown", "This is not an address of a marketplace.", "Begin it with https://")
    try:
        with urlopen(url.rstrip("/") + "/v1/receipt-key", timeout=CONNECT_SECONDS) as reply:
            published = msgspec.json.decode(reply.read(KEY_LIMIT), type=PublicKey)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise StartError(
            "receipt_key_unknown",
            f"The published key cannot be read there ({type(error).__name__}).",
            "Give it with --key.",
        ) from error
    return _read_key(published.public_key)
