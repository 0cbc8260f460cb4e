"""Experiments: runs, trials, interlocks, replay."""
