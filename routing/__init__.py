"""Rules that qualify a lead and choose the business that gets it. Pure functions: no clock, no randomness, no I/O."""
