"""Other shapes of a kit than a folder, for machines that are set up by something else than a technician's hands."""
