"""What is told to people: outcome, interval, passages, faithfulness; run_pictures, pictures, drawing; pages (HTML)."""
