"""Every route of the directory, for the application to serve."""

from marketplace.directory import endpoints, parties, subscriptions, suppressions, verticals

handlers = (
    *verticals.handlers,
    *parties.handlers,
    *endpoints.handlers,
    *subscriptions.handlers,
    *suppressions.handlers,
)
