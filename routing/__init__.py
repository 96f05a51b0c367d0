"""Who should have a lead, and why not the others: pure rules, without a clock, chance or any input or output."""
