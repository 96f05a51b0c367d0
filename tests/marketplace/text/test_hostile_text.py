"""Reading takes no more than a bounded time, in proportion to the size, whatever is written into any field.

Each field is filled with pieces that make careless readers slow, at a size and at twice and four times that size, up to
what a body may hold. Processor time is measured, the best of a few tries.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import process_time
from typing import Any, Final

import msgspec
import pytest
from msgspec import inspect

import marketplace
from marketplace.directory.suppressions import Person, marks_of
from marketplace.feedback.returns import _call_faults, evidence_of
from marketplace.feedback.wire import CallBody
from marketplace.intake.reading import decode_inquiry, read_inquiry
from marketplace.intake.shapes import InquiryBody
from marketplace.portal.forms import CODES, fill
from marketplace.runtime.errors import InvalidInput
from marketplace.text.answers import mask_answer
from marketplace.text.characters import clean_line, clean_text, is_visible, mask_cards, read_number
from marketplace.text.faults import read
from marketplace.text.mailbox import spellings
from marketplace.text.masking import ending_of, shape_of
from marketplace.text.spreadsheet import cell
from routing.inquiry import Mode, cut_query
from tests.builders.inquiries import NOW, find_area, iso, roofing_body, roofing_rules

BODY: Final = 64 * 1_024
"Bytes: what a body may hold."

SIZES: Final = (BODY // 8, BODY // 4, BODY // 2)
"Characters of a field: escaped and quoted, the longest fill a body."

SMALL: Final = (200, 1_000)
"Sizes at which even a reading of the fourth power is over soon."

IN_THE_LOOP: Final = 0.02
"Seconds that anything may hold the event loop."

STEEPEST: Final = 3.0
"What twice the size may cost: linear is 2, quadratic 4."

EASY: Final = 0.004
"Seconds for a whole body below which nothing is slow, and the clock is too coarse to compare."

TRIES: Final = 4

PIECES: Final = (
    "1 ", "1", "4111 1111 1111 1111 ", "1\t", "1-", "1\u200b", "#", "##a", "?#", "#= ", "@", "a@",
    "a.", "a@b.", "+", "(", "(1", "1x",
    ";ext=1", ",", ", ", " ", "\t", "\n", "\r\n", "\u00a0", "\u0301",
    "e\u0301", "\u200b", "\u3164", "\u202e", "\u0661", "\uff11 ", "\ufdfa", "ß",
    "%25", "&amp;", "\\u0061", "\\", '"', "'", "<", "a", "A-", "PH ", "24/7;", "https://", "\U0001f469\u200d", "=",
)  # fmt: skip


FEW: Final = ("1 ", "a@", "a.", "@", " ", "\n", "\u0301", "\u3164", "\uff11 ", "\\", '"', "a", ", ")
"For texts that only a pattern is asked of."


def cost(work: Callable[[], object], limit: float = EASY) -> float:
    """The least processor time of a few tries, in seconds; the first below the limit will do."""
    best = float("inf")
    for _ in range(TRIES):
        began = process_time()
        work()
        best = min(best, process_time() - began)
        if best < limit:
            break
    return best


def is_steep(work: Callable[[str], object], text: str) -> bool:
    """Return whether the text takes over STEEPEST times as long as its half: the least times of many tries in turns.

    A machine that is busy for a moment makes some tries slow, but not all.
    """
    whole, half = [], []
    for _ in range(TRIES):
        whole.append(cost(lambda: work(text), 0.0))
        half.append(cost(lambda: work(text[: len(text) // 2]), 0.0))
    return min(whole) >= STEEPEST * min(half)


def demand_linear(work: Callable[[str], object], piece: str, name: str = "") -> None:
    """Fails where a reading of `piece` over and over is too slow, or grows faster than its size.

    Small sizes come first, so that even the slowest reading fails soon.
    """
    text = piece * SIZES[-1]
    costs: list[float] = []
    for size in (*SMALL, *SIZES):
        costs.append(cost(lambda size=size: work(text[:size])))  # type: ignore[misc]
        assert costs[-1] < IN_THE_LOOP, f"{name} {piece!a} of {size}: {costs[-1] * 1_000:.1f} ms"
    line = f"{name} {piece!a}: " + ", ".join(f"{seconds * 1_000:.1f} ms" for seconds in costs)
    doubled = tuple(zip(SIZES, costs[len(SMALL) :], strict=True))
    for (_, earlier), (size, later) in pairwise(doubled):
        assert later < STEEPEST * max(earlier, EASY) or not is_steep(work, text[:size]), line


# Functions that read one text.


def search_marks(text: str) -> None:
    """As the searches of pages and the forms of operators read a person."""
    for person in (Person(phone=text), Person(email=text), Person(email=f"{text}@example.com")):
        try:
            marks_of(person)
        except InvalidInput:
            continue


READERS: Final[dict[str, Callable[[str], object]]] = {
    "clean_text": clean_text, "clean_line": clean_line, "is_visible": is_visible, "read_number": read_number,
    "cut_query": cut_query, "shape_of": shape_of, "ending_of": ending_of, "cell": cell, "marks_of": search_marks,
    "spellings": lambda text: spellings(f"{text[:254]}@gmail.com"),
    "mask_answer": lambda text: mask_answer(text.encode()),
    "codes": lambda text: CODES.split(text.strip()),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_each_reader_of_a_text_is_linear(name: str) -> None:
    for piece in PIECES:
        demand_linear(READERS[name], piece, name)


def test_cards_are_found_in_linear_time_and_quickly_in_what_is_kept() -> None:
    """A summary has 2,000 characters; the whole of a body is never searched at once."""
    for piece in PIECES:
        before = 0.0
        for size in (500, 1_000, 2_000, 4_000, 8_000):
            seconds = cost(lambda text=(piece * size)[:size]: mask_cards(text))  # type: ignore[misc]
            assert seconds < IN_THE_LOOP * size / 2_000, ascii(piece)
            if before > 0.001 and seconds >= STEEPEST * before:
                steep = is_steep(mask_cards, (piece * size)[:size])
                assert not steep, f"{piece!a}: {seconds / before:.1f} times as slow at {size}"
            before = seconds


# An inquiry, field by field.


def text_paths(kind: inspect.Type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every text of a shape; `*` stands for the items of a list, the key and the value of a map for themselves."""
    match kind:
        case inspect.StrType():
            yield path
        case inspect.UnionType(types=types):
            for one in types:
                yield from text_paths(one, path)
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from text_paths(field.type, (*path, field.encode_name))
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            yield from text_paths(item, (*path, "*"))
        case inspect.DictType(key_type=key, value_type=value):
            yield from text_paths(key, (*path, "{key}"))
            yield from text_paths(value, (*path, "{value}"))


def placed(document: Any, path: tuple[str, ...], text: str) -> Any:
    """A copy of the document with the text at a path; a list is filled with as much of it as it may hold."""
    if not path:
        return text
    step, *rest = path
    following = tuple(rest)
    if step == "*":
        count = min(50, max(1, len(text) // 1_200))
        first = document[0] if isinstance(document, list | tuple) and document else {"kind": "x", "at": iso(NOW)}
        part = len(text) // count
        return [
            placed(first if following else None, following, text[at * part : (at + 1) * part]) for at in range(count)
        ]
    if step == "{key}":
        return {text: "x"}
    if step == "{value}":
        return {"x": text}
    fields = document if isinstance(document, dict) else {}
    return fields | {step: placed(fields.get(step), following, text)}


INQUIRY: Final = sorted(set(text_paths(inspect.type_info(InquiryBody))))


def take_in(body: bytes) -> None:
    inquiry = decode_inquiry(body)
    if not isinstance(inquiry, tuple):
        read_inquiry(inquiry, roofing_rules(), find_area(inquiry.contact), mode=Mode.live, now=NOW)


@pytest.mark.parametrize("path", INQUIRY, ids="/".join)
def test_an_inquiry_is_read_in_linear_time_whatever_a_field_holds(path: tuple[str, ...]) -> None:
    """At sizes that the field takes, where it is read in earnest, and at those that it refuses."""
    for piece in PIECES:

        def work(text: str) -> None:
            raw = json.dumps(placed(roofing_body(), path, text), ensure_ascii=False).encode()[:BODY]
            take_in(raw)

        demand_linear(work, piece, "/".join(path))
        for size in (60, 100, 200, 500, 1_000, 2_000, 5_000):
            text = (piece * size)[:size]
            assert cost(lambda text=text: work(text)) < IN_THE_LOOP, f"{path} {piece!a} of {size}"  # type: ignore[misc]


def test_a_body_full_of_touches_and_words_is_read_within_the_time() -> None:
    """The worst that fits into one body: every searched text at its limit, digits and spaces throughout."""
    digits = "1 " * 2_000
    body = roofing_body(touches=[{"kind": "k", "at": iso(NOW), "detail": digits[:199]}] * 50)
    body["contact"] |= {"full_name": digits[:99], "street": digits[:199], "role": digits[:99]}
    body["bant"] |= {"need": {"summary": digits[:1_999], "fields": {"roof_type": "tile"}}}
    body["metadata"] = {f"{number}": digits[:199] for number in range(20)}
    raw = json.dumps(body).encode()
    assert cost(lambda: take_in(raw)) < 2 * IN_THE_LOOP


# Every other body and form.


def shapes() -> list[type[msgspec.Struct]]:
    for module in pkgutil.walk_packages(marketplace.__path__, "marketplace."):
        if not module.name.endswith(("cli", "__main__")):
            importlib.import_module(module.name)
    sent = re.compile(r"New[A-Z]\w+|\w+(Form|Change|Body)|Pipeline|Person")
    found: list[type[msgspec.Struct]] = []
    kinds: list[type[msgspec.Struct]] = [msgspec.Struct]
    while kinds:
        children = kinds.pop().__subclasses__()
        kinds += children
        found += [
            shape for shape in children
            if sent.fullmatch(shape.__name__) and shape.__module__.startswith("marketplace.")
            and not shape.__module__.endswith((".store", ".intake.shapes")) and ".demo." not in shape.__module__
        ]  # fmt: skip
    return sorted(set(found), key=lambda shape: (shape.__module__, shape.__name__))


SHAPES: Final = shapes()


def test_the_bodies_and_forms_are_found() -> None:
    assert len(SHAPES) > 40
    assert len(INQUIRY) > 30
    assert {"DispositionBody", "ReturnBody", "NewSuppression", "SuppressForm", "OutcomeForm"} <= {
        shape.__name__ for shape in SHAPES
    }


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.__module__}.{shape.__name__}")
def test_every_body_and_form_is_read_in_linear_time(shape: type[msgspec.Struct]) -> None:
    for path in sorted(set(text_paths(inspect.type_info(shape)))):
        if "{key}" in path or "definition" in path:
            continue

        def work(text: str, path: tuple[str, ...] = path) -> None:
            read(json.dumps(placed({}, path, text), ensure_ascii=False).encode()[:BODY], shape)
            if len(path) == 1 and shape.__name__.endswith("Form"):
                try:
                    fill(shape, {path[0]: (text,)})
                except InvalidInput:
                    return

        for piece in FEW:
            demand_linear(work, piece, f"{shape.__name__} {path}")


def test_the_calls_of_a_return_are_read_in_linear_time() -> None:
    for piece in PIECES:
        calls = tuple(CallBody(at=NOW, outcome="spoke", number=(piece * 40)[:40]) for _ in range(20))  # type: ignore[arg-type]
        work = lambda calls=calls: (list(_call_faults(calls, NOW)), evidence_of(None, calls))  # noqa: E731
        assert cost(work) < IN_THE_LOOP, ascii(piece)
