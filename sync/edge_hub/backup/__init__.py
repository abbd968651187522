"""A hub that is copied while it runs, and set back."""
