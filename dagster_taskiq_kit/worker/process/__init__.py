"""Fork servers and their children: the processes in which code of users executes."""
