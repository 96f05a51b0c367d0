"""Names of the steps of a lead on pages, each with what it counts: inquiries, leads (accepted) or prospects."""

from typing import Final

STEP_NAMES: Final = {
    "received": "Inquiries",
    "valid": "Leads",
    "qualified": "Prospects",
    "eligible": "Prospects eligible",
    "awarded": "Prospects awarded",
    "delivered": "Prospects delivered",
    "contacted": "Prospects contacted",
    "won": "Prospects won",
}
