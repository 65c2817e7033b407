"""The API server's side: requests, watches, and objects reduced to what counts at once."""
