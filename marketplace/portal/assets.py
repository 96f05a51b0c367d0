"""Stylesheet, script and icon of the portal, each at an address that contains a digest of its content.

Because the address changes with the content, browsers may cache an asset for ever.
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
    """A static file; `digest` is part of its address."""

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
        name=path.name,
        media_type=media_type,
        content=content,
        compressed=gzip.compress(content, 9, mtime=0),
        digest=hashlib.sha256(content).hexdigest()[:16],
    )


ASSETS: Final = {
    asset.name: asset
    for asset in (
        _asset(OURS / "portal.css", "text/css"),
        _asset(OURS / "portal.js", "text/javascript"),
        _asset(OURS / "inbox.js", "text/javascript"),
        _asset(OURS / "icon.svg", "image/svg+xml"),
    )
}


def asset(name: str) -> str:
    """Return the address of an asset. Raises KeyError for an unknown name."""
    return ASSETS[name].address


def takes_gzip(request: AnyRequest) -> bool:
    """Return whether the caller accepts gzip, and ranks it no lower than an uncompressed answer."""
    return preferred(request, "accept-encoding", ("identity", "gzip")) == "gzip"


@get("/assets/{digest:str}/{name:str}", signed_out=True)
async def show_asset(request: AnyRequest, digest: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Return an asset, compressed if the caller accepts gzip."""
    file = ASSETS.get(name)
    if file is None or file.digest != digest:
        raise errors.NotFound("There is no such file. The page that asked for it may be out of date.")
    headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
    if takes_gzip(request):
        return Response(file.compressed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.content, media_type=file.media_type, headers=headers)
