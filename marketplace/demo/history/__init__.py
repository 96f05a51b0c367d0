"""The weeks before a demo: what the same people and businesses would have done, by the same rules, in simulated time.

    arrivals → simulation (the rules) → doors (deliveries) → outcomes (what the businesses tell) → rows → loading

Everything but who holds which id follows from the seed and the moment at which it ends. All of it is marked: inquiries
have `demo_history` among their sub-ids, dispositions and imports the source `demo`.
"""
