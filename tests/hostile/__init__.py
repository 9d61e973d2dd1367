"""Submissions that cheat, break things or are merely careless. None may earn a point that it should not have."""
