"""The kit against real servers, channels and databases."""
