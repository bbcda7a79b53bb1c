"""What of a caller's environment would lead clients of the private servers elsewhere."""

import re
from collections.abc import Iterable

#: Settings that the servers' own variables say nothing of. As empty they count as unset, even where
#: ``.env`` has them.
EMPTY = dict.fromkeys(
    (
        *("PG_PASSWORD_FILE", "PG_SSLMODE", "PG_SSLROOTCERT", "PG_REPLICA_HOSTS"),
        *("KG_REDIS_CA_FILE", "KG_WORKER_ROLE"),
    ),
    "",
)
# libpq's own, https://www.postgresql.org/docs/current/libpq-envars.html, without those that `PG_`
# settings win over, and Celery's, which wins over KG_REDIS_URL. libpq refuses many as empty.
_MISLEADING = re.compile(
    r"PG(HOSTADDR|SERVICE(FILE)?|OPTIONS|TARGETSESSIONATTRS|DATESTYLE|TZ|CHANNELBINDING"
    r"|(SSL|GSS|KRB|REQUIRE|MIN|MAX)[A-Z]+)"
    r"|CELERY_BROKER_(READ_|WRITE_)?URL"
)


def misleading(names: Iterable[str]) -> list[str]:
    """Return those of these variables that clients of the private servers must not have at all."""
    return sorted(name for name in names if _MISLEADING.fullmatch(name))
