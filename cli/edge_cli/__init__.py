"""The `edge-agent` command: thin, every command calls one library function."""
