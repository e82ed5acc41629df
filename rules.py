"""What counts as what: the facts about the application that deploy and verification share, as data.

Deploy and verification read the host by different means, but must not differ in what they look for. So each of these
stands here once.
"""

import re
from pathlib import Path

from remote.readings import Rules

PARTNER_TOKEN, APP_ID, JWT_SECRET = KEYS = ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID", "JWT_SECRET")
TOKENS = (PARTNER_TOKEN, APP_ID)

# A text that stands where a value should be: seen in the wild, and what people type meanwhile. The
# whole value, case ignored. Written so that Python and JavaScript read it alike.
PLACEHOLDER = (
    r"^(test_token_waiting_for_real|ваш_.*|сгенерируйте_.*|вставьте_.*|your[_-].*|.*[_-]here|.*[_-]from[_-]yclients|"
    r"токен.*|<.*>|[.…*_-]+|change[_-]?me|todo|xxx)$"
)

MIN_JWT_SECRET = 32  # characters; anything shorter can be guessed, and counts as missing

# What the application signs with when it has no JWT_SECRET: the stand-in's, and that of the live system.
PUBLIC_DEFAULTS = ("default-jwt-secret-change-in-production", "your-secret-key-change-in-production")

# What cannot be a token, and why not. Case ignored; written so that Python and JavaScript read it alike.
MALFORMED = {
    PARTNER_TOKEN: {
        "^bearer[ :]": "begins with Bearer: leave that word out",
        "^[0-9]{1,8}$": "is a short number: is it the application id?",
        "[^!-~]": "has a space, or letters that only look Latin: copy it again",
        "^.{1,7}$": "is too short: copy all of it",
    },
    APP_ID: {"[^0-9]": "is not a number"},
}

# What the host needs of these to judge a `.env`.
DOTENV: Rules = {
    "keys": list(KEYS),
    "placeholder": PLACEHOLDER,
    "public_defaults": list(PUBLIC_DEFAULTS),
    "min_jwt_secret": MIN_JWT_SECRET,
}

# Of the migration's thirteen columns, the five by which the requirements see that it ran.
MIGRATION = "add_marketplace_fields_to_companies.sql"
MIGRATION_COPY = Path(__file__).parent / "files/opt/ai-admin/migrations" / MIGRATION  # where the application has none
COLUMNS = ("integration_status", "marketplace_user_id", "whatsapp_connected", "api_key", "webhook_secret")

# The application's source, below its folder.
ROUTES = "src/api/routes/yclients-marketplace.js"
SESSION_POOL = "src/integrations/whatsapp/session-pool.js"
HEALTH_CHECK = "/marketplace/health-check"
MARKETPLACE = r"marketplace|/redirect['\"`]"  # in the files that it, or what stands in its way, is made of
MENTION = "|".join((MARKETPLACE, *KEYS))  # in all that is read of the source
POOL_CLASS = "WhatsAppSessionPool"
METHODS = ("getQR", "getSession", "createSession", "getSessionStatus")
KNOWN_METHODS = (*METHODS, "initSession")  # those that our block can give the session pool a sound meaning for


def is_placeholder(value: str) -> bool:
    return re.match(PLACEHOLDER, value.strip(), re.IGNORECASE) is not None


def malformed(key: str, value: str) -> str:
    """Why this cannot be the key's value; empty where nothing is known against it."""
    rules = MALFORMED.get(key, {}).items()
    return next((why for pattern, why in rules if re.search(pattern, value, re.IGNORECASE)), "")
