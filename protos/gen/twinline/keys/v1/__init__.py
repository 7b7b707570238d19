"""Generated stubs of the protos in twinline.keys.v1."""
