"""Stage 4: record what the business reports about a lead, and settle requests to return it."""
