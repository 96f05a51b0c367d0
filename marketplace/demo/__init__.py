"""A whole marketplace for trying: invented businesses with real receivers, and a live stream of invented people."""
