"""Makes a client's text fit to be shown: in a reason, and so in a log that a person reads."""


def excerpt(text: str, max_chars: int) -> str:
    """Cut a text, and put U+FFFD in the place of what could upset a terminal."""
    cut = text if len(text) <= max_chars else f"{text[:max_chars]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in cut)
