"""Measurements. They assert nothing: the tests do that."""
