"""Web push: a member's browsers and phones are notified of new leads, without contact data."""
