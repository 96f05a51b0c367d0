"""Style, script and icon of the portal, each at an address that contains a digest of its content.

An address that changes with the content may be cached for ever; a page names exactly the content that it was made with.
"""

import gzip
import hashlib
from pathlib import Path
from typing import Final

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from marketplace.runtime import errors
from marketplace.web.http import AnyRequest, preferred

OURS: Final = Path(__file__).with_name("assets")
FOR_EVER: Final = "public, max-age=31536000, immutable"
SMALLEST_COMPRESSED: Final = 1_000


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """One file, with the address under which pages name it."""

    name: str
    media_type: str
    content: bytes
    compressed: bytes
    digest: str

    @property
    def address(self) -> str:
        return f"/assets/{self.digest}/{self.name}"


def _asset(path: Path, media_type: str) -> Asset:
    content = path.read_bytes()
    return Asset(
        name=path.name, media_type=media_type, content=content, compressed=gzip.compress(content, 9, mtime=0),
        digest=hashlib.sha256(content).hexdigest()[:16],
    )  # fmt: skip


ASSETS: Final = {
    asset.name: asset
    for asset in (
        _asset(OURS / "portal.css", "text/css"),
        _asset(OURS / "portal.js", "text/javascript"),
        _asset(OURS / "icon.svg", "image/svg+xml"),
    )
}


def asset(name: str) -> str:
    """The address of an asset, for a page. Raises KeyError for one that there is not."""
    return ASSETS[name].address


def takes_gzip(request: AnyRequest) -> bool:
    """Whether the caller takes answers compressed with gzip, and likes them no less than as they are."""
    return preferred(request, "accept-encoding", ("identity", "gzip")) == "gzip"


@get("/assets/{digest:str}/{name:str}", signed_out=True)
async def show_asset(request: AnyRequest, digest: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """One asset, compressed where the caller takes it so."""
    found = ASSETS.get(name)
    if found is None or found.digest != digest:
        raise errors.NotFound("There is no such file; the page that named it is of an older version.")
    headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
    if takes_gzip(request):
        return Response(found.compressed, media_type=found.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(found.content, media_type=found.media_type, headers=headers)
