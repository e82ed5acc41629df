"""The second application on a rehearsal host. Apart from its inventory, second.py, which only loads while one is up."""

FOLDER, APP, PORT, DOMAIN, DATABASE = "/srv/salons/bot", "salon_bot", 3100, "salons.example", "salons"
