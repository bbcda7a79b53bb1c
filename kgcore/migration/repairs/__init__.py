"""Repairs: ways to make rows fit that would be refused otherwise. Named, and off unless asked for.

``values`` holds those of single values, ``registry`` all of them by name, ``propose`` says which
would help.
"""

from kgcore.migration.repairs.propose import Proposal, for_rows, proposals
from kgcore.migration.repairs.registry import (
    ALL,
    DROP_DANGLING,
    MERGE_DUPLICATES,
    PLACEHOLDER_ENTITIES,
    PLACEHOLDER_TYPE,
    REPAIRS,
    Repair,
    Repairs,
    choose,
    for_key,
    is_merging,
    is_of_entities,
    refers_to_entities,
    takes_placeholders,
)
from kgcore.migration.repairs.values import ServerInstant

__all__ = [
    "ALL",
    "DROP_DANGLING",
    "MERGE_DUPLICATES",
    "PLACEHOLDER_ENTITIES",
    "PLACEHOLDER_TYPE",
    "REPAIRS",
    "Proposal",
    "Repair",
    "Repairs",
    "ServerInstant",
    "choose",
    "for_key",
    "for_rows",
    "is_merging",
    "is_of_entities",
    "proposals",
    "refers_to_entities",
    "takes_placeholders",
]
