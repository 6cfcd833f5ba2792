"""Helpers of the tests: counterparts, clients, traffic, accounting."""
