"""The living parts of one process: its link to the broker, its dispatch thread, its instances and workers."""
