"""Asking a child whether it is ready."""

import urllib.request


def answers(url: str) -> bool:
    """Say whether an HTTP GET of the URL succeeds within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1.0) as response:  # noqa: S310 - our own http address
            return bool(200 <= response.status < 300)
    except (OSError, ValueError):
        return False
