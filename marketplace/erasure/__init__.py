"""Erase a person: stop the open lead, destroy the personal data, and notify the business that has seen it."""
