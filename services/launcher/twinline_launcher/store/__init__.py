"""What the launcher keeps, by noun. Every method is one short transaction."""
