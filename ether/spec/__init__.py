"""What a class offers: its marks, its methods and how payloads become arguments. No I/O, nothing stored."""
