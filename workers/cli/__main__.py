"""``python -m workers.cli`` is ``kg``."""

from workers.cli.main import main

main()
