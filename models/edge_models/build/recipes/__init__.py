"""Recipes: each module here has one `RECIPE`, and everything that is particular to its data and networks."""
