"""What is true of the broker, its queues and its workers, and what of it is fine."""
