"""What an operator types. Each command's module is imported when it is called, so ``--help`` is fast."""
