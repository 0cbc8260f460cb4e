"""Exports: records as files for other programs."""
