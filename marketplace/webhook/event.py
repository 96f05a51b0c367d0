"""Schemas of parts of events that are JSON already when an event is composed, such as the contact of a person."""

from typing import Final

from msgspec import Meta

REFERENCE: Final = "#/components/schemas/"
"Beginning of a reference to a schema of the API's document."


def json_of(name: str) -> Meta:
    """Return the annotation of a value that is the JSON of a Struct with this name."""
    return Meta(extra_json_schema={"$ref": f"{REFERENCE}{name}"})
