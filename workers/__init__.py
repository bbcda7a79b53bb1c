"""Celery workers, the coordinator, the progress channel and the command line."""
