"""The release of the kit, and the schema of what it writes to the broker."""

__version__ = "0.2.0"

#: Version of messages, records and keys. A worker takes what is not newer than itself.
SCHEMA_VERSION = 1
