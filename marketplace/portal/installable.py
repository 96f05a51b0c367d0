"""Parts by which a browser installs the portal as an app: manifest, service worker, and a page without connection."""

from typing import Any, Final

import msgspec
from litestar import Response, get

from marketplace import BRAND
from marketplace.portal.assets import OURS, asset
from marketplace.portal.frame import page
from marketplace.web.http import AnyRequest

SERVICE_WORKER: Final = (OURS / "service-worker.js").read_bytes()
COLOUR: Final = "#1a56c4"
"Colour of the window's frame: that of links in the light stylesheet."


@get("/manifest.webmanifest", signed_out=True)
async def show_manifest(request: AnyRequest) -> Response[bytes]:
    """Return the manifest: name, icon and first page of the app."""
    icon = {"src": asset("icon.svg"), "type": "image/svg+xml", "sizes": "any", "purpose": "any"}
    manifest = {
        "name": BRAND,
        "short_name": BRAND,
        "id": "/",
        "start_url": "/",
        "scope": "/",
        "display": "standalone",
        "theme_color": COLOUR,
        "background_color": "#f5f7fa",
        "icons": [icon, {**icon, "purpose": "maskable"}],
    }
    return Response(
        msgspec.json.encode(manifest),
        media_type="application/manifest+json",
        headers={"Cache-Control": "public, max-age=3600"},
    )


@get("/service-worker.js", signed_out=True)
async def show_service_worker(request: AnyRequest) -> Response[bytes]:
    """Return the service worker. It is at the root, because it serves the pages below its own address alone."""
    return Response(SERVICE_WORKER, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


@get("/offline", signed_out=True)
async def show_offline(request: AnyRequest) -> Response[bytes]:
    """Show the page that the service worker keeps for the time without a connection."""
    return page(request, None, "offline.html")


handlers: tuple[Any, ...] = (show_manifest, show_service_worker, show_offline)
