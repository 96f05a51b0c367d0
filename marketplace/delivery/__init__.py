"""Stage 3: deliver an assigned lead to the business's endpoint."""
