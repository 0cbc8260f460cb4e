"""Reading a ledger: records as values, tables and exports."""
