"""Begins a thread when it is imported: who imports it is served layered."""

import threading

threading.Thread(target=threading.Event().wait, name="begun", daemon=True).start()
