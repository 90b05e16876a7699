"""Rows of text and how they become tokens: `rows` finds and reads them, `chat` encodes them."""
