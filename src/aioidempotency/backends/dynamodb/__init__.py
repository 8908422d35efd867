"""The backend on DynamoDB, through aiobotocore."""

from aioidempotency.backends.dynamodb.backend import DynamoDBBackend
from aioidempotency.backends.dynamodb.client import Config, DynamoDBClient, Session
from aioidempotency.backends.dynamodb.group_commit import GroupCommit
from aioidempotency.backends.dynamodb.transport import Choice

__all__ = ["Choice", "Config", "DynamoDBBackend", "DynamoDBClient", "GroupCommit", "Session"]
