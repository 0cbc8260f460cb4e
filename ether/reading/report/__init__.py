"""One run as one file that opens anywhere: its values, trials, settings and origins, for a lab book."""
