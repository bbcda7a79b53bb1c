"""What the graph refuses by itself, on both databases alike."""

from kgcore.errors import UnknownEntityError

_HINT = "add the entities first: add_entity returns the id"


def unknown_entities(ids: list[int]) -> UnknownEntityError:
    """Return the error for these ids."""
    return UnknownEntityError(f"there is no entity with id {_named(ids)}", _HINT)


def vanished_entities(ids: list[int]) -> UnknownEntityError:
    """Return the error for ids of which one was added or deleted at that very moment."""
    return UnknownEntityError(
        f"an entity was deleted, or not yet added, at that moment: one of {_named(ids)}", _HINT
    )


def _named(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:10])) + (", …" if len(ids) > 10 else "")
