"""Real files of leads, submitted through the public interface, row by row, with what became of each."""
