"""Webhooks: allowed URLs and addresses, signatures, and sending one so that it is known whether a byte was sent."""
