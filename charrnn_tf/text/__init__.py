"""From the names that a user gives to characters, ids and windows; also vocabularies, the cache of long texts, and named
downloads. May import `settings`."""
