"""Is this cluster fit for the run? Checks on a running cluster, each with its remedy."""
