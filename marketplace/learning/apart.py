"""Training in a process of its own: leads go in, a card with its judgement comes out.

The process is started as `python -m marketplace.learning.apart`, reads an encoded TrainingSet and writes an encoded
TrainingAnswer. It has a low priority, and is killed if whoever waits for it is cancelled.
"""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from datetime import datetime
from typing import Final

import msgspec

from marketplace.learning.drift import InputProfile, profile_inputs
from marketplace.learning.evaluation import CardEvaluation, FollowedOutcome
from routing.scorecard import BUSINESS_FEATURE, FeatureValue, Scorecard, compile_scorecard
from routing.vertical import VerticalDefinition

LOWER_PRIORITY: Final = 10
"Niceness of the process: leads and the database come first on a busy machine."
SEED: Final = 1
"Seed of the folds, so that the same leads give the same card."


class TrainingLead(msgspec.Struct, frozen=True, kw_only=True):
    """Values of a lead at its receipt, the time at which its business was shown it, and its outcome."""

    values: dict[str, FeatureValue]
    received_at: datetime
    outcome: FollowedOutcome


class TrainingSet(msgspec.Struct, frozen=True, kw_only=True):
    """Leads of a vertical, its rules, which have the words of its questions, and the names of its parties by id."""

    vertical: str
    definition: VerticalDefinition
    providers: dict[str, str]
    businesses: dict[str, str]
    leads: tuple[TrainingLead, ...]


class TrainingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of the process: a card with its judgement and the inputs that it saw, or a reason and a sentence."""

    card: Scorecard | None = None
    evaluation: CardEvaluation | None = None
    profile: InputProfile | None = None
    reason: str | None = None
    detail: str | None = None


class TrainingFailed(RuntimeError):
    """Raised when the process ended without an answer."""


async def train_apart(training_set: TrainingSet) -> TrainingAnswer:
    """Train a card in a process of its own. Raises TrainingFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "marketplace.learning.apart", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    try:
        answer, _ = await process.communicate(msgspec.msgpack.encode(training_set))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise TrainingFailed(f"The training ended with {process.returncode}.")
    return msgspec.msgpack.decode(answer, type=TrainingAnswer)


def train_set(training_set: TrainingSet) -> TrainingAnswer:
    """Return a card trained on the leads, its judgement, and the inputs that it saw; or the refusal."""
    from marketplace.learning.training import TrainingRefusal, TrainingRow, plan_for, train

    days = [lead.received_at.date() for lead in training_set.leads]
    plan = plan_for(training_set.vertical, training_set.definition, SEED)
    plan = msgspec.structs.replace(
        plan,
        labels={**plan.labels, "provider": training_set.providers, BUSINESS_FEATURE: training_set.businesses},
        first=min(days, default=None),
        last=max(days, default=None),
    )
    result = train([TrainingRow(values=lead.values, outcome=lead.outcome) for lead in training_set.leads], plan)
    if isinstance(result, TrainingRefusal):
        return TrainingAnswer(reason=result.reason, detail=result.detail)
    profile = profile_inputs(compile_scorecard(result.card), [lead.values for lead in training_set.leads])
    return TrainingAnswer(card=result.card, evaluation=result.evaluation, profile=profile)


def main() -> None:
    """Train a card from the set on standard input, and write the answer to standard output."""
    os.nice(LOWER_PRIORITY)
    training_set = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=TrainingSet)
    sys.stdout.buffer.write(msgspec.msgpack.encode(train_set(training_set)))


if __name__ == "__main__":
    main()
