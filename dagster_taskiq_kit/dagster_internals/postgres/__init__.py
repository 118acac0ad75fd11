"""How Dagster speaks to PostgreSQL in processes of the kit: pooled, patient, and in few words."""
