"""Text that people and servers send: read within bounds, every fault named, and masked before it is kept."""
