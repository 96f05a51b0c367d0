"""Requests in the form of somebody else's software: body from a template, headers, and authentication."""
