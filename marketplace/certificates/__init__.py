"""Certificates of consent: claimed at the service that made them before a lead is exposed, and kept as evidence."""
