"""The nurture lane: leads that wait for a date, an answer, a touch or points, and giving one back early."""
