"""The shell around the pure rules: HTTP, SQL, queue, clock and configuration, in the four stages of a lead's walk."""

from typing import Final

BRAND: Final = "Leadline"
"""The name of the product, on every page and in the description of the interface."""
