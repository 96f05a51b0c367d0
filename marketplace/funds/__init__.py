"""Funds as people see them: top-ups, wallets with their statements, and what providers have earned."""

from marketplace.funds.http import handlers

__all__ = ["handlers"]
