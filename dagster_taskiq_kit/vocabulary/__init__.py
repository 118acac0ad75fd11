"""The words that every other room speaks: states, tags, messages, errors."""
