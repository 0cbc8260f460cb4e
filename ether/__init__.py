"""Ether: ordinary Python classes as parts of a running lab."""
