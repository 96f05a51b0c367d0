"""What the marketplace tells of itself: speed, routing, what was unsold, quality, money; each figure with its rows."""
