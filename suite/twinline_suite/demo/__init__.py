"""`twinline demo`: the main job, end to end, on throw-away data, with nothing faked."""
