"""Introduction of the interface's description: what holds for every call."""

from typing import Final

INTRODUCTION: Final = """Live inquiries in, exclusive leads out: each to exactly one business.

**Keys.** Send `Authorization: Bearer lk_live_…`. A key is of a provider, a business or an operator, and sees what
belongs to it; everything else is answered as if it did not exist. A key that begins with `lk_test_` works on test
data, which is never charged, delivered to a live endpoint or counted.

**Values.** Ids begin with their kind, such as `lead_` or `biz_`. Times are RFC 3339, in UTC unless they say
otherwise. Amounts are integers in the smallest unit of their currency, in fields that end in `_minor`: 4000 of USD
are $40.00.

**Sending an inquiry.** `POST /v1/inquiries` takes an `Idempotency-Key`. The same key with the same body gives the
same answer, so that a call whose answer was lost may be sent again. A 2xx means that the inquiry is stored on disk.

**Refusals** are `application/problem+json` (RFC 9457). `code` is stable, `detail` says what to do, and `errors`
lists every field that needs attention with its JSON pointer. `type` leads to an explanation of the code;
`/problems` lists all.

**Lists** have `limit` (1 to 200), `data`, `has_more` and `next_cursor`; send the cursor as `cursor` to get the next
page.

**Changes** of versioned objects state the version that was read, in `If-Match` or `version`. If another version is
in force by then the answer is 409, and nothing is changed.

**Limits.** A call beyond a key's limit is answered by 429 with `Retry-After` in seconds.
"""
