"""Work that keeps failing: tried again later, set aside, and ended in time."""
