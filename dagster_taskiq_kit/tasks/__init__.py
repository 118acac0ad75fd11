"""The queue in users' own hands: a resource, and taskiq tasks of their own."""
