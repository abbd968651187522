"""How long records are kept, and how a subject is erased."""
