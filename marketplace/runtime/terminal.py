"""The option `--json` of the commands that print results, and the file that it names."""

from pathlib import Path

import rich_click as click

JSON_FILE = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the result here.",
)


def write_json(file: Path | None, value: object, *, private: bool = False) -> None:
    """Write a value as JSON to the file, if there is one; only its owner may read a `private` one."""
    import msgspec

    if file is None:
        return
    if private:
        file.touch(mode=0o600)
        file.chmod(0o600)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
