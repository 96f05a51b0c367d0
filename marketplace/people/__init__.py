"""A person's own data: who has it, and everything that is held about the person."""
