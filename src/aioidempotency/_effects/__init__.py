"""Effects in DynamoDB: a call's own writes and events, committed with the result; ids and items made once.

`writes`, `commits`, `ids` and `outbox` are pure. `pending` collects writes, and `store` sends requests.
"""
