"""Import CSV files: one reader of cells for all kinds of files, and one way to run, follow and undo an import."""
