"""Every service in one process: `twinline up` and `twinline demo`."""
