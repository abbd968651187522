"""A site's backup: one file of what it remembers, and a place made of it again. Source: edge_agent/MEMORY.md."""
