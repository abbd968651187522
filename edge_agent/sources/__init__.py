"""Sources: where an agent's observations come from. Each is an entry point of the group `edge_agent.sources`."""
