"""Rules of a subscription that contradict its vertical: every lead that passes them is rejected there.

Such a subscription would wait for leads that never come. It is refused with the rule by name instead.
"""

from collections.abc import Iterator

from routing.inquiry import amount_in_words
from routing.qualification import Dimension, ResultConsequence
from routing.subscription import INFINITE, DefinitionFault, DefinitionFaultCode, SubscriptionDefinition, passes
from routing.vertical import VerticalDefinition


def contradictions(definition: SubscriptionDefinition, vertical: VerticalDefinition) -> Iterator[DefinitionFault]:
    """Yield a fault for each rule that no qualified lead of the vertical can pass."""
    yield from _score_faults(definition, vertical)
    yield from _authority_faults(definition, vertical)
    yield from _answer_faults(definition, vertical)
    yield from _price_faults(definition, vertical)


def _score_faults(definition: SubscriptionDefinition, vertical: VerticalDefinition) -> Iterator[DefinitionFault]:
    highest = vertical.policy(0).most_points
    if definition.bant.minimum_score > highest:
        yield _fault("/bant/minimum_score", f"The highest score of a lead in this vertical is {highest}.")


def _authority_faults(definition: SubscriptionDefinition, vertical: VerticalDefinition) -> Iterator[DefinitionFault]:
    policy, authorities = vertical.authority, definition.persona.authorities
    met = policy.on_fails is ResultConsequence.reject or Dimension.authority in definition.bant.must_meet
    if met and authorities and not set(authorities) & set(policy.accepted):
        accepted = ", ".join(authority.replace("_", " ") for authority in policy.accepted)
        yield _fault("/persona/authorities", f"A lead with such an authority never qualifies here. Add {accepted}.")


def _answer_faults(definition: SubscriptionDefinition, vertical: VerticalDefinition) -> Iterator[DefinitionFault]:
    """Yield a fault for each question whose wanted answers the rules exclude. An unanswered one may qualify unless the
    need must be met."""
    must_meet = Dimension.need in definition.bant.must_meet
    if not must_meet and vertical.need.on_fails is not ResultConsequence.reject:
        return
    for field, choices in vertical.need.wanted.items():
        rules = [rule for rule in definition.attributes if rule.field == field]
        answers = choices if must_meet else (None, *choices)
        if rules and not any(all(passes(rule, answer) for rule in rules) for answer in answers):
            words = ", ".join(map(str, choices))
            yield _fault("/attributes", f"A lead qualifies here only if “{field}” is one of: {words}.")


def _price_faults(definition: SubscriptionDefinition, vertical: VerticalDefinition) -> Iterator[DefinitionFault]:
    """Yield a fault if the price range of the subscription lies outside that of the vertical."""
    jobs, persona = vertical.price_range, definition.persona
    if jobs is None or jobs.currency != definition.currency:
        return
    low, high = persona.minimum_price_minor or 0, persona.maximum_price_minor or INFINITE
    if low > (jobs.maximum_minor or INFINITE):
        most = amount_in_words(jobs.maximum_minor or 0, jobs.currency)
        yield _fault("/persona/minimum_price_minor", f"Jobs in this vertical cost at most {most}.")
    if high < (jobs.minimum_minor or 0):
        least = amount_in_words(jobs.minimum_minor or 0, jobs.currency)
        yield _fault("/persona/maximum_price_minor", f"Jobs in this vertical cost at least {least}.")


def _fault(pointer: str, detail: str) -> DefinitionFault:
    return DefinitionFault(pointer=pointer, code=DefinitionFaultCode.never_matches, detail=detail)
