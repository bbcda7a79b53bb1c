"""Redis beside the work: a client that gives up soon, and how it is said that it can't be used."""

import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from kgcore.errors import BrokerError

#: By which kombu and redis say that the broker can't be used.
BROKER_ERRORS = (redis.RedisError, OperationalError, ConnectionError)


# A step must not wait long for a Redis that is gone: the ledger has its result.
_TIMEOUT_SECONDS = 2.0


def impatient_client(url: str) -> redis.Redis:
    """Return a client that tries once: its user has better things to do, or may ask again."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def unreachable(error: Exception) -> BrokerError:
    """Return the error that says why Redis can't be used, and the mend. No password is in it."""
    text = " ".join(str(error).split())
    if isinstance(error, redis.AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return BrokerError("Redis refused the login", "correct the password in KG_REDIS_URL")
    if isinstance(error, redis.OutOfMemoryError) or text.startswith("OOM"):
        return BrokerError(
            "Redis is out of memory (maxmemory, noeviction)",
            "raise maxmemory or free space; the run then goes on: kg resume RUN",
        )
    if isinstance(error, redis.exceptions.NoPermissionError) or "NOPERM" in text:
        return BrokerError(
            f"Redis forbids a command or a key to this user: {text}",
            "give the user the rights that docs/security.md lists",
        )
    if "certificate" in text.lower():
        return BrokerError(
            f"the Redis server doesn't prove that it is the right one: {text}",
            "set KG_REDIS_CA_FILE to the certificate of the authority that signed the server's, and"
            " the host in KG_REDIS_URL to the name that it is for",
        )
    return BrokerError(
        f"Redis can't be reached: {text}",
        "start it, or correct KG_REDIS_URL; to try things: kg embedded up",
    )
