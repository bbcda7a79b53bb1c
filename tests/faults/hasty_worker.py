"""``kg worker`` with a broker that loses patience while a step is being done."""

import sys

from workers.app import app
from workers.cli.context import worker_command

if __name__ == "__main__":
    app.conf.broker_transport_options |= {
        "visibility_timeout": 1,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }
    command = worker_command(1, sys.argv[sys.argv.index("--name") + 1])
    app.worker_main(command[command.index("worker") :])
