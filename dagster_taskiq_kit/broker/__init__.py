"""The broker: records, streams of ids, worker cards and bells on one Redis or Valkey.

Nothing in this folder knows Dagster. The record of a message is the only truth about who owns it;
the streams hold ids, and can be rebuilt from the records.
"""
