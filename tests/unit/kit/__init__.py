"""The parts of the kit that need no server."""
