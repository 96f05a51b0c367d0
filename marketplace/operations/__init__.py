"""Commands that run an installation, verify it, and make a restored database safe."""
