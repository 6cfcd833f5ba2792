"""The tests, by what is real in them."""
