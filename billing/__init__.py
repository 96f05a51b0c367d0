"""Rules of money: provider payouts, returns, and the comparison of exclusive with shared leads.

Pure functions of values: no clock, no random numbers, no I/O.
"""
