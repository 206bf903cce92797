"""From a name that a user gives to characters, ids and windows: reading texts, vocabularies, the cache of long texts,
named downloads. May import `settings`."""
