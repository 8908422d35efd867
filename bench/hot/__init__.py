"""What `bench.placements` is made of: a proxy with limits, calls on a schedule, and what is shown of them."""
