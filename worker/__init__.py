"""Celery workers: the supervisor of one attempt, validation, reconcilers. Never imports torch."""
