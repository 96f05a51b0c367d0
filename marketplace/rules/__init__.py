"""The rules in force: verticals, subscriptions, open hours and public holidays."""
