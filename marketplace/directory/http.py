"""All HTTP handlers of the directory."""

from marketplace.directory import endpoints, parties, subscriptions, suppressions, verticals

handlers = (
    *verticals.handlers,
    *parties.handlers,
    *endpoints.handlers,
    *subscriptions.handlers,
    *suppressions.handlers,
)
