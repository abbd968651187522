"""How the hub keeps its tables: one schema on SQLite and PostgreSQL."""
