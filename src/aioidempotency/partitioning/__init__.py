"""Where records live: the table's key, and how keys spread over its partitions.

One DynamoDB partition takes about 1,000 write units a second, so one partition value takes about
500 new calls. A strategy spreads keys over several values. A second attempt must find what the first
one wrote: so where a record may be is a function of the key, or every location is looked at in one
transaction.
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
