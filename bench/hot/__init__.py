"""What `bench.placements` is made of: schedules, calls, rounds of measurements, and what is drawn from them."""
