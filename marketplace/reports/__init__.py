"""Reports: speed, routing, unsold leads, quality, money and return on investment, each figure with its leads."""
