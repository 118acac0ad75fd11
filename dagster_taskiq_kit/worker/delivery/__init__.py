"""What a worker does with one delivery, from its claim to the end of its record."""
