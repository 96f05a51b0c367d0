"""The second stage of a lead's walk: who gets it, decided on fresh numbers and recorded whole."""
