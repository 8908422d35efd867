"""The backend on DynamoDB, through aiobotocore."""

from aioidempotency.backends.dynamodb.backend import DynamoDBBackend
from aioidempotency.backends.dynamodb.client import Config, DynamoDBClient, Session
from aioidempotency.backends.dynamodb.group_commit import GroupCommit

__all__ = ["Config", "DynamoDBBackend", "DynamoDBClient", "GroupCommit", "Session"]
