"""What sites know, what all of them are told, and what a site that lost its memory gets back."""
