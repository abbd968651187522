"""Node kits: everything that turns a bare machine into a node of a site."""
