"""Celery's settings, each with its reason. Read when they are first needed, not at import.

Redis carries hints and no truth: a message names a step, and the ledger in PostgreSQL decides
whether there is anything to do. So every setting here prefers delivering a message twice to losing
one.
"""

from kgcore.config import load_settings

broker_url = load_settings().redis_url()
# Steps go to the queues of their target (``workers.queues``); nothing is sent to this one.
task_default_queue = "kg"
# Nothing but JSON is read: a pickle in the broker would run code.
accept_content = ["json"]
task_serializer = "json"
# Acknowledged after the work. A worker that dies leaves its message to the next.
task_acks_late = True
task_reject_on_worker_lost = True
# One message a process, and none hoarded: without the second setting (Celery 5.6, Redis) a
# worker takes its next message while it still works, and other machines idle.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
# Outcomes are in the ledger; result keys in Redis would be read by nobody.
task_ignore_result = True
result_backend = None
# A worker may be started before Redis is.
broker_connection_retry_on_startup = True
# A Redis that is out of memory refuses acknowledgements: wait for it instead of ending.
broker_channel_error_retry = True
# After a lost connection a late-acknowledged task goes on: its work is fenced by the ledger.
worker_cancel_long_running_tasks_on_connection_loss = False
broker_transport_options = {
    # Said by name: kombu looks it up where it makes a channel.
    "queue_order_strategy": "workers.queues:InOrderOfKinds",
    # A step may take hours (an index of a large table). Redelivery to an idle worker would be
    # a no-op, and the sweeper finds lost steps long before.
    "visibility_timeout": 6 * 3600,
    # A dead peer that sends no RST is noticed by these. The retry is for acknowledgements: after
    # one that failed (kombu 5.7) the worker stays connected and never takes a message again.
    "socket_timeout": 10,
    "retry_on_timeout": True,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
broker_connection_timeout = 5
# No task of ours is ever sent by worker events, and `kg doctor` asks by ping.
worker_send_task_events = False
worker_hijack_root_logger = True
