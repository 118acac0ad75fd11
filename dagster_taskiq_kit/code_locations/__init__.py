"""What a worker knows of a code location without Dagster: its options, its names, its files."""
