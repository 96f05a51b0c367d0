"""The pages of an operator."""

from marketplace.portal.live import Part
from marketplace.portal.operator import overview

PARTS: tuple[Part, ...] = ()

handlers = (*overview.handlers,)
