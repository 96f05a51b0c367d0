"""The live feed: leads for businesses without a server, read by whoever has a key, and paid for when acknowledged."""
