"""What makes the data that is kept by hand, and reads it."""
