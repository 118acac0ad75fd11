"""What a fork server does before it forks, so that children begin at once and compute right."""
