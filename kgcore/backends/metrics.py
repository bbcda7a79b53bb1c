"""The pools' statistics as Prometheus metrics: the extra ``jarvis-kg[metrics]``.

Nothing else imports this module, so the library does without prometheus-client.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    from kgcore.errors import SettingsError

    raise SettingsError(
        "pool metrics need the package prometheus-client",
        "install it with: pip install 'jarvis-kg[metrics]'",
    ) from error

from kgcore.backends.pool import PoolStats

_GAUGES = {
    "size": ("kg_pool_connections", "Open connections: idle and in use."),
    "available": ("kg_pool_available", "Connections that could be had without waiting."),
    "in_use": ("kg_pool_in_use", "Connections lent out."),
    "idle": ("kg_pool_idle", "Open connections that nobody uses."),
    "waiting": ("kg_pool_waiting_threads", "Threads that wait for a connection."),
}
_COUNTERS = {
    "waited_seconds": ("kg_pool_waited_seconds", "Seconds that threads waited for a connection."),
    "opened": ("kg_pool_opened", "Connections opened."),
    "closed": ("kg_pool_closed", "Connections closed."),
}


_Labels = tuple[str, str]  # pool, server


class HasPool(Protocol):
    """A backend or graph with a connection pool: ``PostgreSQLBackend``, ``KnowledgeGraph``."""

    def pool_stats(self) -> PoolStats | None:
        """Return the pool's numbers; None where there is no pool."""

    def replica_pool_stats(self) -> dict[str, PoolStats]:
        """Return the numbers of the replicas' pools by their names; empty without replicas."""


class PoolCollector(Collector):
    """Gives the numbers of pools at the moment of a scrape.

    Each has its name as label ``pool``, and as label ``server`` either ``primary`` or the name of
    the replica that its connections lead to. ``pools`` are backends or graphs by name. What has no
    pool (a graph on SQLite) gives nothing. A scrape asks no server anything. Counters start again
    at 0 when a closed backend connects.
    """

    def __init__(self, pools: Mapping[str, HasPool]) -> None:
        self._pools = dict(pools)

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples, so that a second collector of them is refused."""
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; the registry calls this."""
        found: dict[_Labels, PoolStats] = {}
        for name, pool in self._pools.items():
            primary = pool.pool_stats()
            if primary is not None:
                found[name, "primary"] = primary
            for replica, stats in pool.replica_pool_stats().items():
                found[name, replica] = stats
        return self._families(found)

    def _families(self, found: Mapping[_Labels, PoolStats]) -> Iterator[Metric]:
        kinds = ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS))
        for make, described in kinds:
            for field, (metric, text) in described.items():
                family = make(metric, text, labels=["pool", "server"])
                for labels, stats in found.items():
                    family.add_metric(labels, getattr(stats, field))
                yield family
