"""Funds: top-ups, wallets with their statements, credit limits, and the earnings of providers."""

from marketplace.funds.http import handlers

__all__ = ["handlers"]
