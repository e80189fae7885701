"""Images and recordings: read far enough to know that a trainer will not fail on them."""
