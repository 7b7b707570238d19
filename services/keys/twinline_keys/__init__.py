"""Keys: cloud keys, credentials, certificates, people and their tokens."""
