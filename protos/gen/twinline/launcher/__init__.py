"""Generated stubs of the protos in twinline.launcher."""
