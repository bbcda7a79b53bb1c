"""The knowledge graph over SQLite and PostgreSQL, and the migration from one to the other."""
