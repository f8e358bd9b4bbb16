"""Comparing printed texts: the words, not what another machine may print otherwise."""

import re


def same_text(text):
    """Text without digits, bars and line breaks."""
    text = re.sub(r"[─━╋┿┊●│-]{3,}.*?[─━╋┿┊●│]{2,}", "", text)
    text = re.sub(r"[+-]?\d[\d,.]*", "#", text)
    return re.sub(r"[\s─]+", " ", text).strip()
