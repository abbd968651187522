"""Models: the bundle format every room reads, and, behind the extra `models`, the workshop for them."""
