"""Messages: the same content as text and HTML, headers that values cannot break, and the ADF attachment."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from marketplace.mail.adf import AdfLead, as_adf
from marketplace.mail.message import (
    Attachment,
    Letter,
    LetterLine,
    LetterLink,
    MessageAddresses,
    compose_message,
)

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
SENDER = Address(display_name="Lead Line", username="leads", domain="leads.example")


def written(letter: Letter, recipient: str = "owner@roofs.example", *attachments: Attachment) -> EmailMessage:
    addresses = MessageAddresses(sender=SENDER, recipient=recipient, message_id="asg_1")
    message = message_from_bytes(compose_message(letter, addresses, NOW, attachments), policy=default)
    assert isinstance(message, EmailMessage)
    return message


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content())


LETTER = Letter(
    subject="New lead: Roofing",
    heading="Roofing: Zoë Ångström",
    lines=(LetterLine(label="Phone", value="+15125550100"),),
    links=(
        LetterLink(words="Call", url="tel:+15125550100"),
        LetterLink(words="No answer", url="https://m.example/o/1"),
    ),
    ending="This lead is yours alone.",
)


def test_text_and_html_say_the_same() -> None:
    message = written(LETTER)
    assert message["Message-ID"] == "<asg_1@leads.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe"] is None
    for body in (part(message, "plain"), part(message, "html")):
        for text in ("Zoë Ångström", "+15125550100", "tel:+15125550100", "https://m.example/o/1", "yours alone"):
            assert text in body


def test_any_server_can_carry_the_message() -> None:
    addresses = MessageAddresses(sender=SENDER, recipient="joerg@dächer.example", message_id="asg_1")
    content = compose_message(LETTER, addresses, NOW)
    assert content.isascii()
    assert b"xn--dcher-gra.example" in content
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))


def test_letters_outside_ascii_before_the_at_stay_as_they_are() -> None:
    addresses = MessageAddresses(sender=SENDER, recipient="jörg@dächer.example", message_id="asg_1")
    assert "To: jörg@dächer.example\r\n".encode() in compose_message(LETTER, addresses, NOW)


def test_an_alert_can_be_stopped_by_the_mail_program() -> None:
    alert = Letter(subject="A lead waits", heading="A lead waits", unsubscribe_url="https://m.example/u/1")
    message = written(alert)
    assert message["List-Unsubscribe"] == "<https://m.example/u/1>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@given(st.text(), st.text())
def test_no_value_makes_a_header_or_a_tag(name: str, value: str) -> None:
    hostile = f"{name}\r\nBcc: everybody@example.com\r\n\r\n<script>{value}</script>"
    letter = Letter(
        subject=hostile,
        heading=hostile,
        paragraphs=(hostile,),
        lines=(LetterLine(label=hostile, value=hostile),),
        links=(LetterLink(words=hostile, url="https://m.example"),),
    )
    message = written(letter)
    assert message["Bcc"] is None
    assert set(message.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    assert "<script" not in part(message, "html")
    assert len(message["Subject"]) <= 200


def test_an_attachment_is_sent_as_it_is() -> None:
    file = Attachment(content=b"<adf/>", main_type="application", subtype="x-adf+xml", name="lead.adf.xml")
    [attached] = written(LETTER, "owner@roofs.example", file).iter_attachments()
    assert (attached.get_content_type(), attached.get_filename()) == ("application/x-adf+xml", "lead.adf.xml")
    assert attached.get_content() == b"<adf/>"


texts = st.text(max_size=40)


@given(st.builds(AdfLead, requested_at=st.just(NOW), full_name=texts, comments=texts, street=texts, vendor=texts))
def test_adf_is_well_formed_whatever_the_values_are(lead: AdfLead) -> None:
    document = as_adf(lead)
    assert document.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<?adf version="1.0"?>\n<adf>')
    root = ElementTree.fromstring(document)
    order = ["id", "requestdate", "vehicle", "customer", "vendor", "provider"]
    found = [element.tag for element in root.find("prospect") or ()]
    assert found == [name for name in order if name in found]


def test_adf_has_the_contact_and_the_need() -> None:
    lead = AdfLead(
        id="asg_1",
        source="Lead Line",
        requested_at=NOW,
        full_name="Ann & Bo",
        email="ann@example.com",
        phone="+15125550100",
        street="1 Main St",
        postal_code="78701",
        country="US",
        comments="Material: Tile",
        timeframe="within 14 days",
        vendor="Roofs Inc",
        provider="Lead Line",
    )
    root = ElementTree.fromstring(as_adf(lead))
    texts = {
        path: root.findtext(f"prospect/{path}")
        for path in (
            "id",
            "requestdate",
            "customer/contact/name",
            "customer/contact/email",
            "customer/contact/phone",
            "customer/contact/address/postalcode",
            "customer/comments",
            "customer/timeframe/description",
            "vendor/contact/name",
            "provider/name",
        )
    }
    assert list(texts.values()) == [
        "asg_1",
        "2026-03-02T09:30:00+00:00",
        "Ann & Bo",
        "ann@example.com",
        "+15125550100",
        "78701",
        "Material: Tile",
        "within 14 days",
        "Roofs Inc",
        "Lead Line",
    ]
