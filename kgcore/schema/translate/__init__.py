"""From a SQLite schema to tables of PostgreSQL, and a list of all that is not carried over.

::

    inspect ─► source ─┐
    values  ─► types  ─┼─► tables ─► indexes ─► keys ─► translation
    ddl     ─► expressions, defaults, names

All but ``inspect`` and ``values``, which read the file, are pure functions. No text of the file
becomes SQL of the target: see :mod:`~kgcore.schema.translate.expressions`.
"""
