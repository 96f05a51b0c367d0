"""Presets of mapped requests: the request of a known piece of software, the contract of its answers, the sources."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from marketplace.mapping.shapes import RequestMapping
from routing.contract import Contract

FOLDER: Final = Path(__file__).parent / "presets"


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A preset. `about` says what to prepare, `stages` how outcomes come back, `sources` where its format is described.

    `credentials` is the kind of login that the software asks for, and `header` the header of its key,
    `scheme` the word before a fetched token.
    """

    title: str
    url: str
    about: str
    stages: str
    sources: tuple[str, ...]
    mapping: RequestMapping
    contract: Contract
    credentials: Literal["bearer", "basic", "api_key", "oauth2"] | None = None
    header: str | None = None
    scheme: str = "Bearer"


@cache
def load_presets() -> Mapping[str, Preset]:
    """Return the presets by name, in the order of their titles."""
    presets: dict[str, Preset] = {}
    for path in FOLDER.glob("*.toml"):
        preset = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Preset)
        mapping = msgspec.structs.replace(preset.mapping, preset=path.stem, body=preset.mapping.body.strip())
        presets[path.stem] = msgspec.structs.replace(preset, mapping=mapping)
    return dict(sorted(presets.items(), key=lambda item: item[1].title.lower()))
