"""The duties of a worker: one file each, one ``tick()`` each, supervised by the worker."""
