"""History of a demo: several weeks of leads, simulated by the rules in force with the demo's people and businesses.

    arrivals → simulation (the rules) → endpoints (deliveries) → outcomes (dispositions, returns) → rows → loading

Everything except ids follows from the seed and the end of the history. All of it is marked: inquiries have
`demo_history` among their sub-ids, dispositions and imports the source `demo`.
"""
