"""What was recorded, as values, tables and exports."""
