"""Plots of numbers, drawn without a library: as SVG, and as text for a terminal."""
