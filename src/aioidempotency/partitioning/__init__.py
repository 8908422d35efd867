"""Partitioning: the table's key, and the distribution of keys over partitions.

One DynamoDB partition takes about 1,000 write units a second, so one partition value takes about
500 new calls. A strategy distributes keys over several partition values. A second attempt must find the record of
the first attempt. So either the record's partition is a function of the key, or a claim looks at every possible
partition in one transaction. A random or time-dependent suffix alone would let both attempts run.
"""

from aioidempotency.partitioning.buckets import HashBuckets, RandomBuckets, Static
from aioidempotency.partitioning.custom import CustomPartition
from aioidempotency.partitioning.key_schemas import CompositeKey, KeySchema, SimpleKey
from aioidempotency.partitioning.reshard import Reshard
from aioidempotency.partitioning.strategy import Partitioning, Terms
from aioidempotency.partitioning.windows import TimeBuckets

__all__ = [
    "CompositeKey",
    "CustomPartition",
    "HashBuckets",
    "KeySchema",
    "Partitioning",
    "RandomBuckets",
    "Reshard",
    "SimpleKey",
    "Static",
    "Terms",
    "TimeBuckets",
]
