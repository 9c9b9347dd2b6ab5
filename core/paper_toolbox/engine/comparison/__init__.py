"""Methods on the same recipe and paired seeds: comparison, trial, peak_memory, verdicts; report, pictures."""
