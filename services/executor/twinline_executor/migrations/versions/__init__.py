"""The history of this service's tables."""
