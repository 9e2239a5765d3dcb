"""An ordinary Celery task, for workers only: a shared task belongs to every Celery app of the process."""

from celery import shared_task


@shared_task(name="tests.add")
def add(left: int, right: int) -> int:
    """Add."""
    return left + right
