"""Shared leads: leads that a business bought elsewhere, with which its exclusive leads are compared."""
