"""The Celery application. ``celery -A workers.app worker`` on any machine joins in."""

import warnings

from celery import Celery
from celery.platforms import SecurityWarning

from workers import transport

# It warns root of pickles in the broker, of which none is read here.
warnings.filterwarnings("ignore", category=SecurityWarning)

transport.install()
app = Celery(
    "jarvis-kg",
    include=[
        "workers.tasks",
        "workers.tether",
        "workers.sight",
        "workers.announce",
        "workers.listen",
    ],
)
app.config_from_object("workers.celeryconfig")
