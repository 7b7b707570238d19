"""Side-by-side measurements: the suite next to the bare transport that does the same."""
