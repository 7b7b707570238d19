"""What callers may ask for: one module for each gRPC service."""
