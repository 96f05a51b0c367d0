"""What every process works with: clock, ids, settings, errors, log, queue, wake-ups, child processes."""
