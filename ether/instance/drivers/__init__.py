"""Drivers that others wrote: how their objects are made, called by, watched and brought back."""
