"""What an operator writes, understood: settings, urls, files, the words of dagster-celery."""
