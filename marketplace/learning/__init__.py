"""Learned chance of winning: training of points cards from outcomes, and their judgement (docs/LEARNING.md)."""
