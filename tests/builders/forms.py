"""A page's forms as a browser would send them back: every field with what stands in it."""

from html.parser import HTMLParser
from typing import Final

Fields = dict[str, list[str]]
TEXT_INPUTS: Final = frozenset({"text", "hidden", "number", "email", "url", "search", "date", "time", "month"})


class _Forms(HTMLParser):
    """Collects forms by their action, in the order in which they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, Fields]] = []
        self._fields: Fields | None = None
        self._select = ""
        self._options: list[tuple[str, bool]] = []
        self._textarea = ""
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = {}
            self.forms.append((values.get("action", ""), self._fields))
        elif tag == "input":
            self._add_input(values)
        elif tag == "select":
            self._select, self._options = values.get("name", ""), []
        elif tag == "option":
            self._options.append((values.get("value", ""), "selected" in values))
        elif tag == "textarea":
            self._textarea, self._text = values.get("name", ""), ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._fields = None
        elif tag == "select":
            values = [value for value, selected in self._options if selected] or [v for v, _ in self._options[:1]]
            self._add(self._select, *values)
        elif tag == "textarea":
            self._add(self._textarea, self._text.replace("\r\n", "\n").removeprefix("\n").replace("\n", "\r\n"))
            self._textarea = ""

    def _add_input(self, values: dict[str, str]) -> None:
        kind = values.get("type", "text")
        if kind in TEXT_INPUTS or "checked" in values:
            self._add(values.get("name", ""), values.get("value", "on" if "checked" in values else ""))

    def _add(self, name: str, *values: str) -> None:
        if name and self._fields is not None:
            self._fields.setdefault(name, []).extend(values)


def read_form(html: str, action: str) -> Fields:
    """The fields of the largest form with this action, as they stand on the page, without its token."""
    reader = _Forms()
    reader.feed(html)
    matching = [fields for where, fields in reader.forms if where == action]
    assert matching, f"no form with the action {action}"
    largest = max(matching, key=len)
    return {name: values for name, values in largest.items() if name != "csrf"}
