"""The application around the pure rules of routing and billing: HTTP, SQL, queue, clock and configuration."""

from typing import Final

BRAND: Final = "Leadline"
"""Product name on every page and in the OpenAPI document."""
