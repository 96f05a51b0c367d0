"""`marketplace audit` and `marketplace receipt`: the chain checked with our key, a receipt checked by anybody."""

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

from marketplace import audit
from marketplace.audit import ChainFault, ChainReport, Finding
from marketplace.db import connect
from marketplace.embedded import engines
from marketplace.receipts.flow import PublicKey, Receipt, ReceiptFault, check
from marketplace.settings import Settings, StartError, load_existing

ROWS_SHOWN: Final = 20
CONNECT_SECONDS: Final = 10.0
KEY_LIMIT: Final = 4096
"Bytes that are read of what should be a published key."

JSON_FILE = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the result here.",
)

SENTENCES: Final = {
    ChainFault.head_missing: "the chain does not hold the head that you kept: its end was cut off or replaced",
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
    ReceiptFault.unreadable: "This is not a receipt.",
    ReceiptFault.other_key: "The receipt was signed with another key than this one.",
    ReceiptFault.changed: "The receipt was changed after it was signed.",
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
    report = asyncio.run(_verify(load_existing(os.environ), head.lower() if head else None))
    for finding in report.named[:ROWS_SHOWN]:
        click.echo(_sentence(finding))
    if report.findings > ROWS_SHOWN:
        click.echo(f"and {report.findings - ROWS_SHOWN:,} more")
    if report.blocks and sum(one.fault is ChainFault.block_changed for one in report.named) == report.blocks:
        click.echo("No block fits its seal: is this the master key that they were sealed with?")
    examined = f"{report.rows:,} rows, {report.blocks:,} blocks, {report.seconds:.2f} s"
    click.echo(f"{report.findings:,} findings in {examined}.")
    click.echo(f"Head: {report.head or 'none yet'} (block {report.head_block:,})")
    _write(json_file, report)
    if report.findings:
        sys.exit(1)


@click.group()
def receipt() -> None:
    """Check a receipt of who was shown a lead."""


@receipt.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--key", metavar="BASE64", help="The published key.")
@click.option("--url", metavar="URL", help="Where the marketplace is; its published key is fetched from there.")
@JSON_FILE
def verify_receipt(file: Path, key: str | None, url: str | None, json_file: Path | None) -> None:
    """Check the signature of the receipt in FILE. With --key, nothing but the file is needed."""
    if (key is None) == (url is None):
        raise click.UsageError("Give either --key or --url.")
    public_key = _read_key(key) if key is not None else _fetch_key(str(url))
    found = check(file.read_bytes(), public_key)
    if isinstance(found, ReceiptFault):
        click.echo(REFUSALS[found], err=True)
        _write(json_file, {"holds": False, "fault": found})
        sys.exit(1)
    click.echo(_story(found))
    _write(json_file, {"holds": True, "receipt": found})


def _story(found: Receipt) -> str:
    whom = f"{found.business.name} ({found.business.id})" if found.business else "one business"
    arrival = f"Arrived at {found.evidence.at} ({found.evidence.kind})." if found.evidence else "No proof of arrival."
    return (
        f"The receipt holds. {found.lead} ({found.vertical}, {found.mode}) was shown to {whom} at {found.exposed_at} by"
        f" {found.channel}: {', '.join(found.fields)}. {arrival}\n"
        f"Times shown to anybody: {found.exclusive.exposures}. Audit block {found.chain.block}, position"
        f" {found.chain.position}, seal {found.chain.seal}."
    )


def _sentence(finding: Finding) -> str:
    where = "" if finding.block is None else f" in block {finding.block}, position {finding.position},"
    if finding.table is not None:
        what = f"{finding.table} {finding.id}{where} "
    else:
        what = "" if finding.block is None else f"block {finding.block} "
    return what + SENTENCES[finding.fault]


async def _verify(settings: Settings, head: str | None) -> ChainReport:
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
                "Run: marketplace doctor, which tells what is wrong with the database.",
            ) from error


def _read_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise StartError("receipt_key_malformed", "This is not the base64 of 32 bytes.", "Copy public_key whole.")
    return key


def _fetch_key(url: str) -> bytes:
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


def _write(file: Path | None, value: object) -> None:
    if file is not None:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
