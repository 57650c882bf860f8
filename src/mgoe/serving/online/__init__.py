"""The live state: the latest snapshot with every event since."""
