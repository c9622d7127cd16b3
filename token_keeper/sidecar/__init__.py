"""The sidecar: one process that keeps many tokens fresh and gives them to other programs."""
