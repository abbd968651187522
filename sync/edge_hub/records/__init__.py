"""What the hub holds of its sites, and what follows from it: chain, gaps, losses, incidents, explanations."""
