"""Bare pipeline without features, beside which the marketplace is measured.

One Litestar handler inserts the inquiry and enqueues a job. A stock arq worker, which polls every 5 ms, calls one award
function, posts the signed lead on a kept connection, and updates one row. Engines and their settings, process counts,
pools, prepared statements, event loop, HTTP server and the receivers are those of the marketplace.
"""
