"""The directory: who takes part and under which rules: verticals, providers, businesses, endpoints, subscriptions."""

from marketplace.directory.http import handlers

__all__ = ["handlers"]
