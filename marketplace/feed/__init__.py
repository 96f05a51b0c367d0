"""The live feed: leads for businesses without a server, read with a key and charged when acknowledged."""
