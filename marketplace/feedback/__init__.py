"""The fourth stage of a lead's walk: what its business says became of it, and whether it is given back."""
