"""What the import of a library leaves, and whether children forked after it compute right."""
