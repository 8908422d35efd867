"""What one execution costs, here and with its peers: see `bench/README.md`."""
