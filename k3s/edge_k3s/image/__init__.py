"""One OCI image of the kit, made without a container engine: the same inputs give the same bytes."""
