"""Effects in DynamoDB: a call's own writes, ids and events, committed with its result or made once.

`writes`, `commits`, `ids` and `outbox` are pure; `pending` collects, and `store` sends.
"""
