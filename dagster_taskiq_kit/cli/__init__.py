"""What an operator types; each command's module is imported when it is called."""
