"""Carrying an assignment to the business's door: the third stage of a lead's walk."""
