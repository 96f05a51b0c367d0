"""Requests of people to be deleted: a queue with deadlines, carried out as erasures, with a signed proof."""
