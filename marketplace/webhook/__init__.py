"""Webhooks: where one may go, how one is sent so that it is known what has left us, the signature that proves it."""
