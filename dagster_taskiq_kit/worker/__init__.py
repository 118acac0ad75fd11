"""Worker, fork server and children: the processes that execute what the queue holds."""
