"""Handlers and event batches of AWS Lambda.

`facts` reads events and contexts, and is pure; `adapter` runs a coroutine handler for each invocation; `batches` runs
a handler for each record of an event.
"""
