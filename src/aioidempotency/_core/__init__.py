"""The protocol and its values. Everything here is pure, so tests reach every decision without a database."""
