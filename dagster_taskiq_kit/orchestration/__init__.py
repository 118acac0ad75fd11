"""The executor and the process that executes a run: which step next, and how each one ended."""
