"""E-mail: the client of the mail server, messages, addresses of our own for bounces, and the outbox."""
