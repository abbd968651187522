"""Tools: what an agent may do. Each is an entry point of the group `edge_agent.tools`."""
