"""The directory: verticals, providers, businesses, keys, endpoints, subscriptions and suppressions."""

from marketplace.directory.http import handlers

__all__ = ["handlers"]
