"""What a class offers: its marks, its methods, and how payloads become arguments. Pure: no I/O, no state."""
