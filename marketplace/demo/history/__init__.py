"""History before a demo: several weeks of leads, simulated by the same rules with the same people and businesses.

    arrivals → simulation (the rules) → doors (deliveries) → outcomes (dispositions, returns) → rows → loading

Everything except ids follows from the seed and the end of the history. All of it is marked: inquiries have
`demo_history` among their sub-ids, dispositions and imports the source `demo`.
"""
