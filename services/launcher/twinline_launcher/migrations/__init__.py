"""The history of the launcher's tables."""
