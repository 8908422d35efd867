"""The rules of the `Idempotency-Key` header, and the parts that the three front ends share."""
