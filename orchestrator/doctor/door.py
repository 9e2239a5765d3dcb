"""The examination of an API, from outside."""

from collections.abc import Iterator

import httpx

from orchestrator.findings import Finding, error

SECONDS = 5.0


def examine(url: str) -> Iterator[Finding]:
    """Ask an API whether it is ready."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health/ready", timeout=SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        what = f"the API at {url} does not answer: {problem or type(problem).__name__}"
        yield error("api_unreachable", what, "start it; end it (kill -9) if it stands still")
        return
    if answer.status_code != 200:
        missing = answer.headers.get("x-not-ready", f"it answers {answer.status_code}")
        yield error("api_not_ready", f"the API at {url} is not ready: {missing}", "see what it misses, and its log")
