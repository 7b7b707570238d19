"""The twinline command: one module per noun, speaking protos only."""
