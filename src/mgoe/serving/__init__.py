"""From a bundle to a service that ranks: live state, scorer, HTTP."""
