"""What differs on a rehearsal: the real YClients API is never asked. Nothing listens on port 9."""

yclients_api = "http://127.0.0.1:9/api/v1"
