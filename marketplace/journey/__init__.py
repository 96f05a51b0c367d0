"""The journey of a lead after its inquiry: touches that count, and corrections."""
