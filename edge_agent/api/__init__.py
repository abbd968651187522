"""The local API: Open Inference Protocol v2, metrics, health, and a page for the technician at the site."""
