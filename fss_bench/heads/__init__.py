"""Heads that are fitted to the supports of an episode, and what they are fitted with."""
