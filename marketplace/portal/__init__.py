"""The pages on which businesses, providers and operators live: server-rendered, usable without a script."""
