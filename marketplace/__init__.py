"""The shell around the pure rules: HTTP, SQL, queue, clock and configuration, in the four stages of a lead's walk."""
