"""One compression: plan (what is done), step (each method), before_after (what it did), sizes."""
