"""The RPCs, one module for each proto file."""
