"""A document as PDF: its pages, what is on each, and any text whatever."""

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.text.pdf import PdfColumn, PdfDocument, write_pdf

COLUMNS = (PdfColumn("What", 300), PdfColumn("Amount", 100, figures=True))


def document(*rows: tuple[str, ...], title: str = "Statement") -> PdfDocument:
    return PdfDocument(title=title, lines=("Roofs (Chicago) Ltd.",), columns=COLUMNS, rows=rows)


def pages(content: bytes) -> list[str]:
    """Return the texts of each page, one in each line."""
    streams = re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)
    texts = [re.findall(rb"\(((?:[^\\()]|\\.)*)\) Tj", zlib.decompress(stream)) for stream in streams]
    return ["\n".join(re.sub(rb"\\(.)", rb"\1", text).decode("cp1252") for text in page) for page in texts]


def test_a_document_has_its_title_lines_headings_and_rows() -> None:
    content = write_pdf(
        document(("Lead charged: Roofing", "\N{MINUS SIGN}$62.00"), ("Tür & Café €", "CHF\N{NO-BREAK SPACE}1"))
    )
    assert content.startswith(b"%PDF-1.7")
    (page,) = pages(content)
    assert page.splitlines() == [
        "Statement", "Roofs (Chicago) Ltd.", "What", "Amount", "Lead charged: Roofing", "-$62.00",
        "Tür & Café €", "CHF 1", "Statement, page 1 of 1",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 40, 45, 46, 47, 48, 49, 50, 51, 52, 96, 100, 101, 1_000])
def test_every_row_is_on_one_page_under_the_headings(count: int) -> None:
    content = pages(write_pdf(document(*((f"row {number}.", "$1.00") for number in range(count)))))
    assert re.findall(r"row (\d+)\.", "\n".join(content)) == [str(number) for number in range(count)]
    assert all("Amount" in page and f"page {at} of {len(content)}" in page for at, page in enumerate(content, 1))


def test_a_text_wider_than_its_column_is_cut() -> None:
    assert f"{'x' * 63}..." in pages(write_pdf(document(("x" * 200, ""))))[0]


@given(st.text(), st.text())
def test_no_text_breaks_the_file(title: str, cell: str) -> None:
    content = write_pdf(document((cell, cell), title=title))
    assert content.endswith(b"%%EOF\n") or content.rstrip().endswith(b"%%EOF")
    assert len(pages(content)) == 1
