"""Notices to the one business that holds a lead: signed, repeated, and acknowledged or overdue."""
