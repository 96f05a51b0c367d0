"""Imports of files: one reader of cells for all of them, and one way to run, follow and undo an import."""
