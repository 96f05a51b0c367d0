"""The samples of examples/webhooks verify what the service signs, in each language that this machine has."""

import base64
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from standardwebhooks import Webhook

FOLDER: Final = Path(__file__).parents[3] / "examples" / "webhooks"
LANGUAGES: Final = {
    "verify.py": (sys.executable, "-I"),
    "verify.js": ("node",),
    "verify.php": ("php",),
    "verify.rb": ("ruby",),
    "Verify.cs": ("dotnet", "run"),
}
SECRET, OTHER = (f"whsec_{base64.b64encode(bytes([byte]) * 32).decode()}" for byte in (1, 2))
BODY: Final = '{"type":"lead.assigned","data":{"name":"Zoë"}}'


def sign(secret: str, age: int = 0) -> dict[str, str]:
    """Return the headers of a request, as environment variables, signed so many seconds ago."""
    at = int(time.time()) - age
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), BODY)
    return {"WEBHOOK_ID": "msg_1", "WEBHOOK_TIMESTAMP": str(at), "WEBHOOK_SIGNATURE": signature}


def cases() -> dict[str, tuple[dict[str, str], str, bool]]:
    """Return requests that were signed just now: their headers, their body, and whether a receiver takes them."""
    return {
        "signed": (sign(SECRET), BODY, True),
        "signed by two secrets, during a rotation": (
            sign(SECRET)
            | {"WEBHOOK_SIGNATURE": f"{sign(OTHER)['WEBHOOK_SIGNATURE']} {sign(SECRET)['WEBHOOK_SIGNATURE']}"},
            BODY,
            True,
        ),
        "another body": (sign(SECRET), BODY + " ", False),
        "another secret": (sign(OTHER), BODY, False),
        "ten minutes old": (sign(SECRET, 600), BODY, False),
        "ten minutes ahead": (sign(SECRET, -600), BODY, False),
        "no time": (sign(SECRET) | {"WEBHOOK_TIMESTAMP": ""}, BODY, False),
        "no signature": (sign(SECRET) | {"WEBHOOK_SIGNATURE": ""}, BODY, False),
        "a signature that is none": (sign(SECRET) | {"WEBHOOK_SIGNATURE": "v1,? v1 , v1a,x"}, BODY, False),
    }


def test_there_is_a_sample_in_each_language() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".js", ".php", ".rb", ".cs")} == set(
        LANGUAGES
    )


@pytest.mark.parametrize("sample", LANGUAGES)
def test_a_sample_accepts_what_is_signed_and_fresh_and_nothing_else(sample: str) -> None:
    program, *options = LANGUAGES[sample]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    wrong = []
    for name, (headers, body, is_good) in cases().items():
        done = subprocess.run(
            [program, *options, str(FOLDER / sample)],
            input=body.encode(),
            env={**os.environ, **headers, "SECRET": SECRET},
            capture_output=True,
            timeout=60,
            check=False,
        )
        if (done.returncode == 0, done.stdout.strip() == b"verified") != (is_good, is_good):
            wrong.append((name, done.returncode, done.stderr[-300:]))
    assert wrong == []
