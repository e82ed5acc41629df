"""Somebody else's deploy.py, with one of our operations alone, and without our group_data."""

import os

from credentials import Secret
from operations import dotenv

values = {key: Secret(os.environ[key]) for key in ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID") if key in os.environ}
dotenv.secrets(name="Secrets in .env", path="/opt/ai-admin/.env", values=values, app="ai-admin-api")
