"""Erasing a person: the open lead stops, what could name them is destroyed, and whoever has seen them is told."""
