"""The protocol and its values: pure, so that every decision can be tested without a database."""
