"""Generated stubs of the protos in twinline.executor.v1."""
