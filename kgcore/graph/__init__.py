"""The knowledge graph as a library: the same calls and results on SQLite and PostgreSQL."""

from kgcore.errors import UnknownEntityError
from kgcore.graph.knowledge_graph import KnowledgeGraph, get_knowledge_graph

__all__ = ["KnowledgeGraph", "UnknownEntityError", "get_knowledge_graph"]
