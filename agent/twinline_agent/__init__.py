"""The agent: what runs on v5 servers. It dials out, runs tasks through the journal, and never listens."""

__version__ = "0.1.0"
