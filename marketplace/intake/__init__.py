"""First stage of a lead's walk: bytes from a provider become one accepted inquiry, or all of their faults."""
