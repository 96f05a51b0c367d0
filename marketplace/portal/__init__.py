"""Pages for businesses, providers and operators, rendered on the server and usable without JavaScript."""
