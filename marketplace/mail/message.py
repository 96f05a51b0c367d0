"""Build a message from its parts: plain text and HTML with the same content, and an attachment.

Values come from other parties. In a header, control characters and line breaks become spaces; in HTML, everything is
escaped. The message is sent in 7-bit encodings, so that any server may carry it; only an address with letters outside
ASCII before the @ requires more (SMTPUTF8).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from functools import cache
from typing import Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

MOST_LINE: Final = 200
"Characters of a value in a header or in a line of the text."
MOST_PARAGRAPH: Final = 4_000


class LetterLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link with its words."""

    words: str
    url: str


class LetterLine(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its label, such as `Budget` and `12,000 USD`."""

    label: str
    value: str


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a message. The first link is the main one; `unsubscribe_url` is for alerts alone."""

    subject: str
    heading: str
    paragraphs: tuple[str, ...] = ()
    lines: tuple[LetterLine, ...] = ()
    links: tuple[LetterLink, ...] = ()
    ending: str = ""
    unsubscribe_url: str | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is sent with a message."""

    content: bytes
    main_type: str
    subtype: str
    name: str


class MessageAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Sender as people see it, recipient, and the local part of the Message-ID, which a repeated message keeps."""

    sender: Address
    recipient: str
    message_id: str


def compose_message(
    letter: Letter, addresses: MessageAddresses, now: datetime, attachments: Sequence[Attachment] = ()
) -> bytes:
    """Return the message as bytes with lines that end in CRLF."""
    utf8 = not addresses.recipient.rpartition("@")[0].isascii()
    message = EmailMessage(policy=_POLICY_UTF8 if utf8 else _POLICY)
    local, _, domain = addresses.recipient.rpartition("@")
    message["From"] = addresses.sender
    message["To"] = Address(username=local, domain=domain if utf8 or domain.isascii() else _ascii(domain))
    message["Subject"] = plain_line(letter.subject)
    message["Date"] = now
    message["Message-ID"] = f"<{addresses.message_id}@{addresses.sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    if letter.unsubscribe_url is not None:
        message["List-Unsubscribe"] = f"<{letter.unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(as_text(letter))
    message.add_alternative(as_html(letter), subtype="html")
    for attachment in attachments:
        message.add_attachment(
            attachment.content, maintype=attachment.main_type, subtype=attachment.subtype, filename=attachment.name
        )
    return message.as_bytes()


_POLICY: Final = SMTP.clone(cte_type="7bit")
_POLICY_UTF8: Final = SMTPUTF8.clone(cte_type="7bit")


def _ascii(domain: str) -> str:
    import idna

    return idna.encode(domain, uts46=True).decode()


def as_text(letter: Letter) -> str:
    """Return the plain text of a letter."""
    parts = [plain_line(letter.heading), *map(plain_paragraph, letter.paragraphs)]
    if letter.lines:
        parts.append("\n".join(f"{plain_line(line.label)}: {plain_paragraph(line.value)}" for line in letter.lines))
    parts += [f"{plain_line(link.words)}: {link.url}" for link in letter.links]
    if letter.ending:
        parts.append(plain_paragraph(letter.ending))
    if letter.unsubscribe_url is not None:
        parts.append(f"Stop these messages: {letter.unsubscribe_url}")
    return "\n\n".join(parts) + "\n"


def as_html(letter: Letter) -> str:
    """Return the HTML of a letter, with the same content as the text."""
    return _templates().get_template("letter.html").render(letter=letter)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("marketplace.mail"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(line=plain_line, paragraph=plain_paragraph)
    return environment


_SPACE: Final = re.compile(r"\s+")
_BLANK_LINES: Final = re.compile(r"\n\s*\n+")


def plain_line(text: str) -> str:
    """Return a text in one line of at most MOST_LINE characters, without control characters."""
    return _SPACE.sub(" ", _printable(text)).strip()[:MOST_LINE]


def plain_paragraph(text: str) -> str:
    """Return a text of at most MOST_PARAGRAPH characters with its line breaks, without other control characters."""
    lines = "\n".join(_printable(line).strip() for line in text.splitlines())
    return _BLANK_LINES.sub("\n", lines).strip()[:MOST_PARAGRAPH]


def _printable(text: str) -> str:
    """Return a text with a space for each character that is not printable, such as a line break or a lone surrogate."""
    return "".join(character if character.isprintable() else " " for character in text)
