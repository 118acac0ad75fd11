"""The fleet page: one live page of queues, workers and what runs, and the data behind it."""
