"""Leads that a business bought elsewhere, where others bought them too: what its exclusive leads are compared with."""
