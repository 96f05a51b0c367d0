"""The nurture lane: leads that wait for a date, an answer or points, and giving one back early."""
