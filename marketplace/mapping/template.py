"""Templates of request bodies: a small part of Jinja in a sandbox, whose result and time have a bound.

A template may insert variables, with a few filters, decide by `if`, and repeat a part by `for` over one of three lists.
It cannot call anything, compute, import, or loop within a loop, so that its time grows with its length and with the
lists alone. Every value is escaped for the format of the body; text of the template itself is not.
"""

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final
from urllib.parse import quote_plus
from xml.parsers import expat
from xml.sax.saxutils import escape

import msgspec
from jinja2 import TemplateSyntaxError, Undefined, nodes
from jinja2.filters import do_default, do_lower, do_trim, do_truncate, do_upper
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from marketplace.mapping.shapes import BodyFormat
from marketplace.mapping.variables import LISTS, OPEN, VARIABLES

LONGEST_BODY: Final = 256 * 1024
"Characters of a body."
LOOP_NAMES: Final = frozenset({"index", "first", "last"})
FILTERS: Final = frozenset({"default", "json", "lower", "trim", "truncate", "upper"})
TESTS: Final = frozenset({"defined", "none"})
CACHED: Final = 500
"Compiled templates of one process."


class TemplateFault(ValueError):
    """A template that cannot be used; the text says what to change. `line` counts from 1, 0 if it is not known."""

    def __init__(self, detail: str, line: int = 0) -> None:
        super().__init__(f"Line {line}: {detail}" if line else detail)
        self.line = line


class _Ready(str):
    """Text that is escaped already."""

    __slots__ = ()


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that reads the variables by their names, and no attribute of any object but the position in a loop."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in LOOP_NAMES:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = obj.get(argument) if isinstance(obj, Mapping) else None
        return self.undefined(obj=obj, name=str(argument)) if value is None else value


def _text(value: object) -> str:
    """Return a value as text: nothing for one that is missing, and truth values as JSON writes them."""
    if value is None or isinstance(value, Undefined):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _escape_json(value: object) -> str:
    return value if isinstance(value, _Ready) else msgspec.json.encode(_text(value))[1:-1].decode()


def _escape_form(value: object) -> str:
    return quote_plus(_text(value))


_CONTROLS: Final = {code: None for code in (*range(32), 0xFFFE, 0xFFFF) if code not in (9, 10, 13)}
"Characters that XML 1.0 has no way to write."


def _escape_xml(value: object) -> str:
    return escape(_text(value).translate(_CONTROLS), {'"': "&quot;", "'": "&apos;"})


def _write_json(value: object) -> str:
    """Return a value as JSON, null if it is missing."""
    missing = value is None or isinstance(value, Undefined)
    return _Ready(msgspec.json.encode(None if missing else value).decode())


_ESCAPES: Final = {BodyFormat.json: _escape_json, BodyFormat.form: _escape_form, BodyFormat.xml: _escape_xml}


@cache
def _environment(body_format: BodyFormat) -> _Environment:
    environment = _Environment(autoescape=False, finalize=_ESCAPES[body_format], cache_size=0, optimized=False)
    environment.filters = {
        "default": do_default,
        "json": _write_json,
        "lower": do_lower,
        "trim": do_trim,
        "truncate": do_truncate,
        "upper": do_upper,
    }
    environment.tests = {name: environment.tests[name] for name in TESTS}
    environment.globals = {}
    return environment


class BodyTemplate:
    """A template that was checked and compiled."""

    def __init__(self, body_format: BodyFormat, source: str) -> None:
        """Check and compile a template. Raises TemplateFault."""
        environment = _environment(body_format)
        try:
            tree = environment.parse(source)
            _check(tree, body_format)
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateFault(f"{error.message}.", error.lineno) from error
        except RecursionError as error:
            raise TemplateFault("This is nested too deeply.") from error
        if body_format is BodyFormat.xml and "<!" in source.replace("<![CDATA[", "").replace("<!--", ""):
            raise TemplateFault("Leave document types and entities out of the XML.")
        self._format = body_format

    def render(self, variables: Mapping[str, object]) -> bytes:
        """Return the body. Raises TemplateFault if it is too long or is not in its format."""
        parts: list[str] = []
        length = 0
        for part in self._template.generate(variables):
            length += len(part)
            if length > LONGEST_BODY:
                raise TemplateFault(f"The body is longer than {LONGEST_BODY:,} characters.")
            parts.append(part)
        text = "".join(parts)
        if self._format is BodyFormat.form:
            text = "".join(line.strip() for line in text.splitlines()).replace(" ", "+")
        body = text.encode("utf-8", "replace")
        _demand_format(self._format, body)
        return body


@lru_cache(CACHED)
def compile_template(body_format: BodyFormat, source: str) -> BodyTemplate:
    """Return the template, compiled once in this process. Raises TemplateFault."""
    return BodyTemplate(body_format, source)


def _demand_format(body_format: BodyFormat, body: bytes) -> None:
    """Raise TemplateFault if the body is not well-formed."""
    try:
        if body_format is BodyFormat.json:
            msgspec.json.decode(body)
        elif body_format is BodyFormat.xml:
            expat.ParserCreate().Parse(body, True)
    except msgspec.DecodeError as error:
        detail = "The result is not JSON. Put a text in quotes, or write a whole value as {{ contact.email | json }}."
        raise TemplateFault(f"{detail} ({error})") from error
    except expat.ExpatError as error:
        raise TemplateFault(f"The result is not XML: {expat.ErrorString(error.code)}.", error.lineno) from error


# The part of the language that is allowed.

_PLAIN: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Concat,
)


def _check(tree: nodes.Template, body_format: BodyFormat) -> None:
    """Raise TemplateFault for the first part of a template that is not allowed."""
    _check_nodes(tree, body_format, frozenset())


def _check_nodes(node: nodes.Node, body_format: BodyFormat, items: frozenset[str]) -> None:
    """Check a node and all below it; `items` are the names of the loop's item, empty outside a loop."""
    match node:
        case nodes.For():
            items = _check_loop(node, items)
            for child in (*node.body, *node.else_):
                _check_nodes(child, body_format, items)
            return
        case nodes.Name() | nodes.Getattr() | nodes.Getitem():
            _check_variable(node, items)
            return
        case nodes.Filter():
            if node.name not in FILTERS or (node.name == "json" and body_format is not BodyFormat.json):
                raise TemplateFault(
                    f"There is no filter {node.name} here: use {', '.join(sorted(FILTERS))}.", node.lineno
                )
            if node.node is None:
                raise TemplateFault("Blocks of a filter are not allowed.", node.lineno)
        case nodes.Test():
            if node.name not in TESTS:
                raise TemplateFault(f"There is no test {node.name} here: use defined or none.", node.lineno)
        case nodes.Keyword():
            pass
        case _ if not isinstance(node, _PLAIN):
            detail = f"“{type(node).__name__.lower()}” is not allowed. Use variables, filters, if, and for over a list."
            raise TemplateFault(detail, node.lineno)
    for child in node.iter_child_nodes():
        _check_nodes(child, body_format, items)


def _check_loop(loop: nodes.For, items: frozenset[str]) -> frozenset[str]:
    """Return the name of the loop's item. Raises TemplateFault."""
    source = loop.iter.name if isinstance(loop.iter, nodes.Name) else None
    if (
        items
        or source not in LISTS
        or loop.recursive
        or loop.test is not None
        or not isinstance(loop.target, nodes.Name)
    ):
        detail = f"A loop goes over one of {', '.join(LISTS)}, such as for item in needs, and holds no other loop."
        raise TemplateFault(detail, loop.lineno)
    if loop.target.name in (*LISTS, "loop", *(name.partition(".")[0] for name in VARIABLES)):
        raise TemplateFault("Name the item of the loop otherwise, such as item.", loop.lineno)
    return frozenset({loop.target.name, "loop"})


def _check_variable(node: nodes.Expr, items: frozenset[str]) -> None:
    """Raise TemplateFault for a name that is not a variable."""
    path = ".".join(_steps(node))
    root, _, name = path.partition(".")
    if root in items:
        allowed = name in LOOP_NAMES if root == "loop" else name in ("name", "value", "kind", "at", "detail")
    else:
        allowed = path in VARIABLES or (root in OPEN and name != "" and "." not in name)
    if not allowed:
        raise TemplateFault(f"There is no variable {path}.", node.lineno)


def _steps(node: nodes.Node) -> Iterator[str]:
    """Yield the names of a variable, the outermost first. Raises TemplateFault for anything but names."""
    match node:
        case nodes.Name(name=name):
            yield name
        case nodes.Getattr(node=inner, attr=attribute):
            yield from _steps(inner)
            yield attribute
        case nodes.Getitem(node=inner, arg=nodes.Const(value=str() as text)):
            yield from _steps(inner)
            yield text
        case _:
            raise TemplateFault("Write a variable by its name, such as contact.email.", node.lineno)
