"""What a worker does for itself and for the whole fleet, one file each, and what that shares."""
