"""A fleet in virtual time: production's own classes between simulated disks, clocks and a broker full of vices."""
