"""Receipts: a signed statement per lead of who was shown which contact fields when, and that nobody else was."""

from marketplace.receipts.http import handlers

__all__ = ["handlers"]
