"""The RPCs: check, act, answer. One module for each gRPC service, named as its proto file."""
