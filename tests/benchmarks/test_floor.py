"""The bare pipeline, on its real processes."""

from benchmarks.end_to_end import run_step
from benchmarks.systems import started_floor


async def test_the_bare_pipeline_delivers_each_lead_once() -> None:
    async with started_floor(workers=1) as floor:
        step = await run_step(floor, 40, 2.0, "test")
        receipts = floor.list_receipts()
        findings = await floor.count_findings()
    figures = step.figures
    assert figures["sent"] > 40
    assert figures["delivered"] == figures["accepted"] == figures["sent"] == len(receipts)
    assert figures["due_to_receipt_ms"]["p50"] < figures["due_to_receipt_ms"]["p99"]
    assert (figures["open_after"], findings) == (0, 0)
    assert all(figures["cpu_ms_per_lead"].values())
