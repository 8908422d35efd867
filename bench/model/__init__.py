"""DynamoDB's API in memory, with the limit of each partition: see `bench/README.md`."""
