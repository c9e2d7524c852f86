"""What an experiment is, how it is run and how its result is kept; the registry of all experiments."""
