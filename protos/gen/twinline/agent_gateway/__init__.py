"""Generated stubs of the protos in twinline.agent_gateway."""
