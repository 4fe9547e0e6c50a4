"""A BookReader-shaped system on embedded servers, with real data in it."""
