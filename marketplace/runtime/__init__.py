"""Modules that every process uses: clock, ids, settings, errors, log, queue, notifications, child processes."""
