"""The machinery of the experiments: their definition, how they are run, their stored results, and their registry."""
