"""Changes of the rules, tried on past leads by the function that decides live.

changes (typed, checked) → loading (leads, wallets, caps as they were) → simulator (pure) → comparison (figures)
flow: a simulation is a row that a worker claims; a process of its own computes it, page by page of leads
"""
