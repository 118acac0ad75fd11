"""What the kit needs of the machine it runs on: clocks, processes, signals."""
