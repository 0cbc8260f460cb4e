"""Operating-system processes: the broker's, the instances', and whoever sees that none outlives its session."""
