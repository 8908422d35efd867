"""What the tests stand on: engines to talk to, and ways to make them fail."""
