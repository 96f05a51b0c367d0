"""Lists of people as keyed hashes: people who must not be contacted, and the customers that a business has already."""
