"""What a message is: topics, values, arrays, headers. Pure: no I/O, no threads, no clock."""
