"""Memory: the site's one SQLite file. Tables and guarantees: edge_agent/MEMORY.md."""
