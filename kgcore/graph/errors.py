"""What the graph refuses by itself, on both databases alike."""

from kgcore.errors import UnknownEntityError


def unknown_entities(ids: list[int]) -> UnknownEntityError:
    """Return the error for these ids."""
    named = ", ".join(map(str, ids[:10])) + (", …" if len(ids) > 10 else "")
    return UnknownEntityError(
        f"there is no entity with id {named}", "add the entities first: add_entity returns the id"
    )
