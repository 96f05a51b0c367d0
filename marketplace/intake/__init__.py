"""The first stage of a lead's walk: bytes from a provider become one accepted inquiry, or every reason why not."""
