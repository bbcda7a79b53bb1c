"""The stages of a migration, a file each. None knows another; ``pipeline`` knows their order."""
