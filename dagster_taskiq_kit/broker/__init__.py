"""The broker: records, streams of ids, worker cards and bells on one Redis or Valkey.

Nothing in this folder knows Dagster. The record of a message is the only truth about it; everything
else here can be rebuilt from the records.
"""
