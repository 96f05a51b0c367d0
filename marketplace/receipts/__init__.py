"""Receipts: a signed statement of who was shown which contact fields of a lead and when, and that nobody else was."""

from marketplace.receipts.http import handlers

__all__ = ["handlers"]
