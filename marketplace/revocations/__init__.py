"""Revoked consent: stop what was not shown yet, and notify the business that holds what was."""
