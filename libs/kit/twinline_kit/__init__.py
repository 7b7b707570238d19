"""What every Twinline service shares: errors, identity, servers and clients, storage, logs. Names no service."""
